"""The service with the routes of two programs: a query, and a held connection."""

from service_with_held_connection import held
from service_with_query_route import ask
from shop import main


def create_app():
    app = main.create_app()
    app.add_api_route("/ask", ask)
    app.add_api_route("/held", held)
    return app

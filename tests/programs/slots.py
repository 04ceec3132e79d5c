"""The service with a route that asks the database, and one that keeps a connection."""

from asking import ask
from held import held
from shop import main


def create_app():
    app = main.create_app()
    app.add_api_route("/ask", ask)
    app.add_api_route("/held", held)
    return app

"""What is asked of an application, and by how many clients."""

import json
from dataclasses import dataclass

from benchmarks.projects import POOL
from benchmarks.seeds import ORDER

# Method, path and body.
Request = tuple[str, str, str]

LINE = {"sku": "tea", "quantity": 2, "price_cents": 450}
GET: Request = ("GET", f"/orders/{ORDER}", "")
KEPT: Request = ("GET", f"/kept/{ORDER}", "")
SLOW: Request = ("GET", "/slow", "")
PLAIN: Request = ("GET", "/plain", "")
POST: Request = (
    *("POST", "/orders"),
    json.dumps({"customer": "ada", "lines": [LINE, LINE, LINE]}),
)
WORKLOADS: dict[str, tuple[Request, ...]] = {
    "read one, session.get": (("GET", f"/get/{ORDER}", ""),),
    "read one, kept statement": (KEPT,),
    "GET /orders/{id}, two statements": (GET,),
    "list 50": (("GET", "/orders?limit=50", ""),),
    "write one (POST /orders)": (POST,),
    "90 % GET /orders/{id}, 10 % POST": (*[GET] * 9, POST),
}


@dataclass(frozen=True)
class Cell:
    """What is asked, by how many clients."""

    requests: tuple[Request, ...]
    clients: int = POOL
    is_polite: bool = False
    seconds: float = 1
    warm_up: float = 0.2

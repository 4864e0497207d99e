"""Fraud: clears paid orders for shipping, or says what is suspicious about them.

Each rule that an order breaks adds to its score. What is known of a customer is in the state, under the address of the
e-mail, which is the key of the events: so the orders of one customer are looked at in order.
"""

from dataclasses import dataclass, field
from typing import Annotated

import wattle
from wattle import Event, Output, Range, state

HOUR_MS = 3_600_000


@dataclass
class Settings:
    """How careful the shop is."""

    threshold: Annotated[int, "The score from which an order is suspicious.", Range(1, 1000)] = 50
    large_cents: Annotated[int, "The sum from which an order is large.", Range(0)] = 90_000
    orders_per_hour: Annotated[int, "Orders of a customer within an hour that are usual.", Range(1, 1000)] = 5
    watched_sku: Annotated[str | None, "An article that thieves like; 10 of it are many."] = "gift-card"


@dataclass
class Customer:
    name: str
    email: str


@dataclass
class Item:
    sku: str
    qty: int
    net_cents: int
    vat_cents: int
    gross_cents: int


@dataclass
class Order:
    order_id: str
    status: str
    country: str
    currency: str
    customer: Customer
    items: list[Item]
    gross_cents: int


@dataclass
class History:
    """What is known of a customer."""

    orders: int = 0
    #: When orders of the last hour came, in milliseconds since 1970.
    recent_ms: list[int] = field(default_factory=list)
    countries: list[str] = field(default_factory=list)


@wattle.plugin(ports=["cleared", "suspicious"], config=Settings, state_version=1)
def handle(event: Event, settings: Settings) -> Output | None:
    order = event.json(Order)
    if order.status != "paid":
        return None
    key = f"customers/{order.customer.email}"
    history = state.get_json(key, History) or History()
    now_ms = event.time_ns // 1_000_000
    history.recent_ms = [ms for ms in history.recent_ms if ms > now_ms - HOUR_MS]
    reasons = broken_rules(order, history, settings)
    history.orders += 1
    # One more than is usual says all that the rule asks for.
    history.recent_ms = [*history.recent_ms, now_ms][-settings.orders_per_hour - 1 :]
    history.countries = sorted({*history.countries, order.country})
    state.set_json(key, history)

    score = sum(points for points, _ in reasons)
    port = "suspicious" if score >= settings.threshold else "cleared"
    answer = {
        "order_id": order.order_id,
        "country": order.country,
        "customer": order.customer,
        "items": [{"sku": item.sku, "qty": item.qty} for item in order.items],
        "gross_cents": order.gross_cents,
        "score": score,
        "reasons": [reason for _, reason in reasons],
    }
    # From here on it is about orders again.
    return Output.json(port, answer, type=f"order.{port}", key=order.order_id)


def broken_rules(order: Order, history: History, settings: Settings) -> list[tuple[int, str]]:
    """Points and reasons of the rules that an order breaks."""
    broken = []
    if order.gross_cents >= settings.large_cents:
        broken.append((30, f"it costs {order.gross_cents / 100:.2f} {order.currency}"))
        if history.orders == 0:
            broken.append((20, "it is the customer's first order"))
    if len(history.recent_ms) >= settings.orders_per_hour:
        broken.append((40, f"it is at least the customer's {len(history.recent_ms) + 1}th order within an hour"))
    if history.countries and order.country not in history.countries:
        broken.append((20, f"the customer's orders before went to {', '.join(history.countries)}"))
    watched = sum(item.qty for item in order.items if item.sku == settings.watched_sku)
    if watched >= 10:
        broken.append((40, f"it asks for {watched} of {settings.watched_sku}"))
    return broken

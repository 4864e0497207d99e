"""Unit tests, without a bus: `python3 -m unittest`."""

import json
import unittest
from typing import Any

from handler import handle
from wattle.testing import TestSubscriber

MINUTE_NS = 60_000_000_000


def order(number: int, gross_cents: int = 1_000, **more: Any) -> dict[str, Any]:
    item = {"sku": "lamp", "qty": 1, "net_cents": 0, "vat_cents": 0, "gross_cents": gross_cents}
    return {
        "order_id": f"o-{number}",
        "status": "paid",
        "country": "DE",
        "currency": "EUR",
        "customer": {"name": "Ada", "email": "ada@example.test"},
        "items": [item | more.pop("item", {})],
        "gross_cents": gross_cents,
        **more,
    }


class FraudTest(unittest.TestCase):
    def setUp(self) -> None:
        self.subscriber = TestSubscriber(handle)

    def send(self, *given: Any, minute: int = 0, **more: Any) -> Any:
        (output,) = self.subscriber.handle(order(*given, **more), time_ns=minute * MINUTE_NS).outputs
        return output

    def test_a_usual_order_is_cleared_under_its_own_key(self) -> None:
        output = self.send(1)
        self.assertEqual((output.port, output.type, output.key), ("cleared", "order.cleared", "o-1"))
        self.assertEqual(output.json()["reasons"], [])

    def test_an_order_that_is_not_paid_yet_is_not_looked_at(self) -> None:
        self.assertEqual(self.subscriber.handle(order(1, status="created")).outputs, [])
        self.assertIsNone(self.subscriber.state("customers/ada@example.test"))

    def test_a_large_order_is_suspicious_as_the_first_one_only(self) -> None:
        self.assertEqual(
            self.send(1, 90_000).json()["reasons"], ["it costs 900.00 EUR", "it is the customer's first order"]
        )
        output = self.send(2, 90_000)
        self.assertEqual((output.port, output.json()["score"]), ("cleared", 30))

    def test_many_orders_within_an_hour_count_and_those_before_do_not(self) -> None:
        scores = [self.send(number, minute=number * 10).json()["score"] for number in range(9)]
        self.assertEqual(scores, [0, 0, 0, 0, 0, 40, 40, 40, 40])
        self.assertEqual(self.send(9, minute=200).json()["score"], 0)
        history = json.loads(self.subscriber.state("customers/ada@example.test") or "")
        self.assertEqual(history["orders"], 10)

    def test_rules_add_up(self) -> None:
        self.send(1)
        output = self.send(2, country="FR", item={"sku": "gift-card", "qty": 12})
        self.assertEqual(output.port, "suspicious")
        self.assertEqual(
            output.json()["reasons"], ["the customer's orders before went to DE", "it asks for 12 of gift-card"]
        )

    def test_what_is_no_order_is_rejected_with_the_path(self) -> None:
        failed = self.subscriber.handle(order(1, item={"qty": "1"})).failed
        assert failed is not None
        self.assertTrue(failed.reason.endswith("items[0].qty: expected an integer, found a text"), failed.reason)

"""Unit tests, without a bus: `python3 -m unittest`."""

import unittest

from handler import handle
from wattle.testing import TestSubscriber


class HandlerTest(unittest.TestCase):
    def test_a_visitor_is_greeted(self) -> None:
        (output,) = TestSubscriber(handle, config={"word": "Hi"}).handle({"name": "Ada"}).outputs
        self.assertEqual((output.port, output.json()), ("greeted", {"text": "Hi, Ada!"}))

    def test_a_visit_without_a_name_is_rejected(self) -> None:
        failed = TestSubscriber(handle).handle({"nom": "Ada"}).failed
        assert failed is not None
        self.assertEqual(failed.action, "reject")
        self.assertIn("name: is missing", failed.reason)

"""The probe itself."""

from handler import handle
from wattle.testing import TestSubscriber


def test_the_probe_answers_a_verb_and_rejects_what_is_none() -> None:
    subscriber = TestSubscriber(handle)
    (output,) = subscriber.handle("grüße 🦀", type="probe.length").outputs
    assert (output.port, output.type, output.text()) == ("out", "probe.length", "7")
    failed = subscriber.handle(type="probe.no").failed
    assert failed and (failed.action, failed.reason) == ("reject", "no verb no")


def test_its_shape_is_written_as_it_was_read() -> None:
    data = (
        '{"text":"\\u0000\\"","integer":-9223372036854775808,"unsigned":18446744073709551615,"real":0.5,"flag":true,'
        '"list":[1,9007199254740993],"nested":{"name":"日本"},"maybe":null}'
    )
    assert TestSubscriber(handle).handle(data, type="probe.json").outputs[0].text() == data

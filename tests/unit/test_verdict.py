"""The record that a chapter displays and the claims page is built from."""

import json

import pytest

from vaelib import Verdict

FACTS = {"claim": "C1", "title": "it <holds>", "measured": "3 nats", "value": 3.0, "unit": "nats"}


def test_a_record_has_three_forms():
    verdict = Verdict(**FACTS, verdict="holds", interval=(2.5, 3.5), seeds=3)
    bundle = verdict._repr_mimebundle_()
    record = json.loads(json.dumps(bundle["application/vnd.vaelib.verdict+json"]))
    assert record["verdict"] == "holds"
    assert record["interval"] == [2.5, 3.5]
    assert "it &lt;holds&gt;" in bundle["text/html"]
    assert "Interval: 2.5 to 3.5 nats" in bundle["text/plain"]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"verdict": "proven"}, "expected one of"),
        ({"verdict": "holds", "condition": "if it rains"}, "only there"),
        ({"verdict": "holds under a condition"}, "expected a condition"),
    ],
)
def test_a_record_that_does_not_add_up_is_refused(change, says):
    with pytest.raises(ValueError, match=says):
        Verdict(**FACTS | change)

"""The record that a chapter displays and the claims page is built from."""

import json
from dataclasses import replace

import pytest

from vaelib import Verdict

FACTS = {"claim": "C1", "title": "it <holds>", "measured": "3 nats", "value": 3.0, "unit": "nats"}


def test_a_record_has_three_forms():
    verdict = Verdict(**FACTS, verdict="holds", interval=(2.5, 3.5), seeds=3)
    bundle = verdict._repr_mimebundle_()
    record = json.loads(json.dumps(bundle["application/vnd.vaelib.verdict+json"]))
    assert record["verdict"] == "holds"
    assert Verdict(**record) == replace(verdict, interval=[2.5, 3.5])  # as the claims page reads
    assert record["interval"] == [2.5, 3.5]
    assert "it &lt;holds&gt;" in bundle["text/html"]
    assert "Interval: 2.5 to 3.5 nats" in bundle["text/plain"]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"verdict": "proven"}, "verdict is 'proven'; expected one of"),
        ({"verdict": "holds", "claim": "D1"}, "claim is 'D1'; expected the id of a claim"),
        ({"verdict": "holds", "title": " "}, "title is ' '; expected the claim"),
        ({"verdict": "holds", "measured": None}, "measured is None"),
        ({"verdict": "holds", "value": float("nan")}, "value is nan; expected a finite number"),
        ({"verdict": "holds", "value": "3"}, "value is '3'"),
        ({"verdict": "holds", "unit": ""}, "unit is ''"),
        ({"verdict": "holds", "interval": (2.0, 1.0)}, "the lower first"),
        ({"verdict": "holds", "interval": (2.0,)}, "two finite numbers"),
        ({"verdict": "holds", "interval": (0.0, float("inf"))}, "two finite numbers"),
        ({"verdict": "holds", "seeds": -1}, "seeds is -1"),
        ({"verdict": "holds", "seeds": True}, "seeds is True"),
        ({"verdict": "holds", "budget": "huge"}, "budget is 'huge'; expected one of"),
        ({"verdict": "holds", "note": ""}, "note is ''"),
        ({"verdict": "holds", "condition": "if it rains"}, "only there"),
        ({"verdict": "holds under a condition"}, "expected a condition"),
    ],
)
def test_a_record_that_does_not_add_up_is_refused(change, says):
    with pytest.raises(ValueError, match=says):
        Verdict(**FACTS | change)

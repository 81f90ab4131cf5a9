"""The protocol of results sinks as tests, for any sink.

class TestMySink(SinkConformance):
    abilities = frozenset({SinkAbility.AWAY})

    @property
    def url(self) -> str: ...             # a place with room for all tests
    def take_away(self) -> None: ...      # for SinkAbility.AWAY, with bring_back
"""

from smoothcluster.testing.sink_conformance.failing import FailingRules
from smoothcluster.testing.sink_conformance.kit import SinkAbility
from smoothcluster.testing.sink_conformance.writing import WritingRules

__all__ = ["SinkAbility", "SinkConformance"]


class SinkConformance(WritingRules, FailingRules):
    """Subclass in a test file, provide `url`, and declare the further abilities of the place."""

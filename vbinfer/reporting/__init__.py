"""One page that says what was learned and whether to believe it."""

from .evidence import Extras as Extras, Recovery as Recovery
from .page import report as report
from .section import Section as Section
from .verdict import Verdict as Verdict

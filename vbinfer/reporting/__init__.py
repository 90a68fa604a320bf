"""Reports: what was learned, and whether to believe it."""

from .evidence import Recovery as Recovery
from .evidence import ReportExtras as ReportExtras
from .figures_field import animate_field as animate_field
from .figures_field import plot_field as plot_field
from .page import report as report
from .sections import Section as Section
from .sections import Verdict as Verdict

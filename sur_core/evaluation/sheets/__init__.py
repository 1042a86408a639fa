"""People's marks and preferences: pages that hide which arm drew what, and what their answers say.

    from sur_core.evaluation.sheets import make_sheet, merge_marks

    made = make_sheet("runs/evaluation", "sheet.html")           # give people the page; the key stays
    marks = merge_marks(made.key, ["answers-anna.json", "answers-ben.json"])
    marks.verdicts                                               # {(path, prompt id): Verdict}

A page is one HTML file that works from a disk, without a server and without the network.
"""

from .agreement import Kappa, cohen_kappa, fleiss_kappa
from .answers import AnswersError, find_key
from .choice import Choice
from .marks import Marks, SheetJudge, merge_marks, read_marks, write_marks
from .page import PageOptions
from .preference import make_preference
from .preferences import Preferences, merge_preferences, read_preferences, write_preferences
from .sheet import Made, make_sheet

__all__ = [
    "AnswersError",
    "Choice",
    "Kappa",
    "Made",
    "Marks",
    "PageOptions",
    "Preferences",
    "SheetJudge",
    "cohen_kappa",
    "find_key",
    "fleiss_kappa",
    "make_preference",
    "make_sheet",
    "merge_marks",
    "merge_preferences",
    "read_marks",
    "read_preferences",
    "write_marks",
    "write_preferences",
]

"""The exceptions of cuvee, and which of them become rows and which stop a run.

::

    CuveeError
      RecipeError      the user's recipe or flag is wrong              exit code 2
      DataError        a file or row breaks its contract               stops the run
      TeacherError     a teacher could not answer                      retried, then a row
      VerifierError    an answer could not be checked                  a row `not_checked`
      TrainError       training cannot start or cannot go on           stops the run
      MergeError       checkpoints do not fit together                 stops the run
      EngineError      a serving process did not start or died         stops the run
      BudgetError      the budget of the recipe is spent               exit code 3

A message names the value, what is allowed and what to do. A traceback reaches a user only
for a bug of cuvee. This module has no rows and imports nothing of cuvee.
"""


class CuveeError(Exception):
    """Base of every error a user can meet; `exit_code` is what the command line returns."""

    exit_code = 1


class RecipeError(CuveeError):
    """The recipe or a flag is wrong: names the key, the value and what is allowed."""

    exit_code = 2


class DataError(CuveeError):
    """A file or row breaks its contract: names the file, the row and the column."""


class TeacherError(CuveeError):
    """A teacher could not answer: names its URL and what it said."""


class VerifierError(CuveeError):
    """An answer could not be checked; becomes a row `not_checked`, never `wrong`."""


class TrainError(CuveeError):
    """Training cannot start or cannot go on."""


class MergeError(CuveeError):
    """Checkpoints do not fit together, or a merge parameter is out of range."""


class EngineError(CuveeError):
    """An engine (a process that serves a model) did not start, or died."""


class BudgetError(CuveeError):
    """The recipe's budget is spent; raising it and running again goes on from there."""

    exit_code = 3

"""What goes wrong when the user's input is wrong: one root class, one paragraph each."""


class UnscanError(Exception):
    """Root of every error that the user can mend; the message is the whole explanation.

    The command line prints it as one paragraph and exits with code 2. Anything else that is raised is a
    defect of unscan and keeps its traceback.
    """


class InvalidInput(UnscanError):
    """A value, shape, recipe or option is not what the model or command needs."""


class InvalidGraph(UnscanError):
    """A graph breaks an invariant of the IR (see `unscan.compiler.spec`)."""


class Unsupported(UnscanError):
    """A layer, node or setting that this part of unscan cannot express, and why."""


class DamagedFile(UnscanError):
    """A file is truncated, altered, from a newer version, or not what its name says."""


class MissingDependency(UnscanError):
    """An optional package is needed and not installed; the message names the command that adds it."""

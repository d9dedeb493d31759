"""What can go wrong, as a small tree.

::

    UnperturbError            anything this package says no to; its text is one sentence for a person
    ├── UsageError            the request itself is wrong: an option, a spec, a name
    │   └── SpecError         a perturbation spec cannot be read; says where and what was expected
    ├── FileError             a file cannot be read, understood or written
    ├── ModelError            a model file is not one, or does not fit the data
    └── TrainingError         training cannot go on: a loss that is not finite, nothing to learn from
        └── ProcessLostError  another process of the run has ended, or this one was told to
"""


class UnperturbError(Exception):
    """Base of every error this package raises on purpose. Its text is one sentence meant for a person."""


class UsageError(UnperturbError, ValueError):
    """The request itself is wrong: an option, a name, a shape."""


class SpecError(UsageError):
    """A perturbation spec cannot be read."""


class FileError(UnperturbError):
    """A file cannot be read, understood or written."""


class ModelError(UnperturbError):
    """A model file is not one, or does not fit the data it is asked to restore."""


class TrainingError(UnperturbError):
    """Training cannot go on."""


class ProcessLostError(TrainingError):
    """Another process of a run has ended, or this one was told to; what was learned is as after the last whole step."""

"""Every error that ASG raises.

AsgError
├── ShapeError            shapes of operands do not fit (also ValueError)
├── DTypeError            an element type does not fit (also TypeError)
├── GraphError            a graph is malformed, or a name in it is unknown
│   └── ParseError        text is not a graph
├── GradientError         a gradient was asked for that does not exist
├── UnsupportedError      a list of nodes that can't be compiled, each with its reason
├── MemoryLimitError      the memory plan can't be made as small as was asked
├── InputError            a call's inputs do not fit the executable (name, shape, dtype)
├── NonFiniteError        a result holds NaN or infinity, and the caller asked to be told
├── BundleError           a bundle is damaged, truncated, tampered with or too new
├── CheckpointError       a checkpoint is damaged or too new
├── DeviceError           no adapter, or the adapter refuses what is needed
│   ├── OutOfMemoryError
│   ├── DeviceLostError
│   └── ShaderError       a generated shader was refused (also an internal fault)
├── ReleasedError         use of a buffer or executable after close()
└── InternalError         a fault of the compiler itself; names the pass and the dump
"""


class AsgError(Exception):
    """Root of all errors raised by ASG."""


class ShapeError(AsgError, ValueError):
    """Shapes of operands do not fit together."""


class DTypeError(AsgError, TypeError):
    """An element type does not fit."""


class GraphError(AsgError, ValueError):
    """A graph is malformed, or a name in it is unknown."""


class ParseError(GraphError):
    """Text is not a graph."""


class GradientError(AsgError):
    """A gradient was asked for that does not exist."""


class UnsupportedError(AsgError):
    """Nodes that can't be compiled, each with its reason."""


class MemoryLimitError(AsgError):
    """The memory plan can't be made as small as was asked."""


class InputError(AsgError, ValueError):
    """A call's inputs do not fit the executable."""


class NonFiniteError(AsgError, ArithmeticError):
    """A result holds NaN or infinity."""


class BundleError(AsgError):
    """A bundle is damaged, truncated, tampered with, or from a newer version."""


class CheckpointError(AsgError):
    """A checkpoint is damaged, or from a newer version."""


class DeviceError(AsgError, RuntimeError):
    """No adapter, or the adapter refuses what is needed."""


class OutOfMemoryError(DeviceError):
    """The device has no memory left for a buffer."""


class DeviceLostError(DeviceError):
    """The device is gone, and with it all state that lived on it."""


class ShaderError(DeviceError):
    """A generated shader was refused by the driver."""


class ReleasedError(AsgError, RuntimeError):
    """A buffer or executable is used after close()."""


class InternalError(AsgError):
    """A fault of the compiler itself."""

    def __init__(self, message: str) -> None:
        super().__init__(f"internal: {message}")

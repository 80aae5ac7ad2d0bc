"""What TensorRT says: errors are kept for whoever reports the failure, the rest is logged."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager

from pipeline.engines.trt_calls import ILogger, LeanTensorRt, Member
from pipeline.errors import EngineError

log = logging.getLogger(__name__)

_OF_MEMORY = ("outofmemory", "out of memory", "could not be allocated")


class TrtLog:
    """Listens from any thread.

    Attributes:
        logger: To be handed to TensorRT, and kept as long as anything that was made with it.
    """

    def __init__(self, trt: LeanTensorRt) -> None:
        errors = deque[str](maxlen=20)
        severities = trt.ILogger.Severity
        grave = (severities.INTERNAL_ERROR, severities.ERROR)

        class Listening(trt.ILogger):  # type: ignore[name-defined, misc]  # found at run time
            def __init__(self) -> None:
                trt.ILogger.__init__(self)  # its C++ half wants no super()

            def log(self, severity: Member, msg: str) -> None:
                if severity in grave:
                    errors.append(" ".join(msg.split()))
                elif severity == severities.WARNING:
                    log.debug("TensorRT: %s", msg)

        self._errors = errors
        self.logger: ILogger = Listening()

    def last_error(self, otherwise: str = "TensorRT does not say why") -> str:
        """The newest error, in one line, and forget all of them."""
        try:
            newest = self._errors.pop()
        except IndexError:
            return otherwise
        self._errors.clear()
        return newest

    def memory_error(self) -> str:
        """The newest error that tells of too little memory, and forget all; else empty."""
        for said in reversed([*self._errors]):
            if any(words in said.lower() for words in _OF_MEMORY):
                self._errors.clear()
                return said
        return ""

    @contextmanager
    def told(self, what: str) -> Iterator[None]:
        """Inside the block TensorRT is to do `what`; its own exceptions become an `EngineError`.

        The bindings raise `TypeError` where an object cannot be made, `RuntimeError` elsewhere.
        """
        self._errors.clear()  # some of what it calls errors is none: a way that was not taken
        try:
            yield
        except (TypeError, RuntimeError) as error:
            if isinstance(error, EngineError):
                raise
            words = self.last_error(" ".join(str(error).split()))
            raise EngineError(f"TensorRT could not {what} ({words})") from error

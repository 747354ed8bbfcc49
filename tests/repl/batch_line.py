"""A `BatchHost` without a process: what it sends is kept, and it can be told that its child does not read."""

from rlm_env.repl.host.batch_host import BatchHost
from rlm_env.repl.host.prompt_budget import PromptBudget
from rlm_env.repl.wire import unpack


class FakeLine:
    """Stands for the channel of a REPL."""

    def __init__(self) -> None:
        self.sent: list[list] = []
        self.writable = True
        self.held = self.behind = False
        self.failed = ""

    def write(self, frame: bytes) -> None:
        self.sent.append(unpack(frame[4:]))

    async def send(self, frame: bytes) -> None:
        self.write(frame)

    def hold(self, held: bool) -> None:
        self.held = held

    def fail(self, why: str) -> None:
        self.failed = self.failed or why


async def echo_texts(prompts: list) -> list:
    return [str(prompt) for prompt in prompts]


def batch_host(
    handler=None,
    budget: PromptBudget | None = None,
    on_busy=lambda busy: None,
    max_items: int = 10,
    max_bytes: int = 1000,
) -> tuple[BatchHost, FakeLine]:
    """A host of batches with a cell running, and its line. 10 prompts and 1,000 characters are allowed."""
    line = FakeLine()
    host = BatchHost(handler or echo_texts, max_items, max_bytes, line, on_busy, budget or PromptBudget(2**30))
    host.open()
    return host, line

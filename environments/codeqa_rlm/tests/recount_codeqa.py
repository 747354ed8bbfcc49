"""A second program that answers the questions of codeqa-rlm; it shares no code with the generator.

Reads JSON lines {"files", "question", "run"} from standard input, writes the options that are true, one JSON list a
line. It imports the files of the context and asks the running program: it calls functions and watches which code runs
at which depth, catches what they raise, and inspects classes and signatures. Nothing is parsed but the question.
Where `run` is false (code from elsewhere, whose functions cannot be called without knowing them), modules are still
imported, and calls are looked up in the compiled bytecode.
"""

import importlib
import importlib.abc
import importlib.util
import inspect
import json
import re
import sys
import types

NAME = r"`([\w.]+)`"
QUESTIONS = [
    (rf"Which of these functions calls {NAME} itself,", lambda repo, o, f: repo.calls(o, f, 1)),
    (
        rf"{NAME} is called without arguments\. .* called at depth (\d)\?",
        lambda repo, o, f, k: repo.calls(f, o, int(k)),
    ),
    (
        rf"inherits from {NAME}, directly or not, and overrides its method {NAME}",
        lambda repo, o, cls, m: repo.overrides(o, cls, m),
    ),
    (rf"What is the method resolution order of {NAME}\?", lambda repo, o, cls: repo.order(cls) == o),
    (rf"{NAME} is called on an instance of {NAME}\.", lambda repo, o, m, cls: repo.owner(cls, m) == o),
    (
        rf"the default value of the parameter {NAME} of {NAME}\?",
        lambda repo, o, p, f: repo.default(f, p) == o,
    ),
    (
        r"Which exception does the call `([\w.]+)\((\w+)=(\d+)\)` end in\?",
        lambda repo, o, *call: repo.raised(*call) == o,
    ),
    (rf"In the code of which of these functions does a call of {NAME} stand\?", lambda repo, o, f: repo.names(o, f)),
    (rf"In the code of which of these functions is {NAME} raised\?", lambda repo, o, e: repo.names(o, e)),
    (r"Which of these statements is true\?", lambda repo, o: repo.is_true(o)),
]
CLAIMS = [
    (rf"{NAME}, called without arguments, calls {NAME} itself\.", lambda repo, a, b: repo.calls(a, b, 1)),
    (
        rf"{NAME}, called without arguments, leads to {NAME} at depth (\d)\.",
        lambda repo, a, b, k: repo.calls(a, b, int(k)),
    ),
    (rf"{NAME} inherits from {NAME} and overrides its method {NAME}\.", lambda repo, *names: repo.overrides(*names)),
    (rf"The method resolution order of {NAME} is (.*)\.", lambda repo, cls, said: repo.order(cls) == said),
    (
        rf"{NAME}, called on an instance of {NAME}, runs first as defined in {NAME}\.",
        lambda repo, m, cls, owner: repo.owner(cls, m) == owner,
    ),
    (
        rf"The parameter {NAME} of {NAME} has the default value (.*)\.",
        lambda repo, p, f, said: repo.default(f, p) == said,
    ),
    (
        r"The call `([\w.]+)\((\w+)=(\d+)\)` ends in `(\w+)`\.",
        lambda repo, f, p, n, said: repo.raised(f, p, n) == said,
    ),
    (rf"In the code of {NAME} stands a call of {NAME}\.", lambda repo, f, called: repo.names(f, called)),
    (rf"In the code of {NAME}, {NAME} is raised\.", lambda repo, f, raised: repo.names(f, raised)),
]


class Finder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Imports the modules of the context out of memory."""

    def __init__(self, files):
        self.sources = {}
        for path, text in files.items():
            name = path.removesuffix(".py").replace("/", ".")
            package = name.endswith("__init__")
            self.sources[name.removesuffix(".__init__") if package else name] = (text, package)

    def find_spec(self, fullname, path=None, target=None):
        if fullname not in self.sources:
            return None
        return importlib.util.spec_from_loader(fullname, self, is_package=self.sources[fullname][1])

    def create_module(self, spec):
        return None

    def exec_module(self, module):
        exec(compile(self.sources[module.__name__][0], module.__name__, "exec"), vars(module))


class Repository:
    """The imported files of one context."""

    def __init__(self, files, run):
        self.run = run
        self.finder = Finder(files)
        self.roots = {name.partition(".")[0] for name in self.finder.sources}
        self.forget()
        sys.meta_path.insert(0, self.finder)

    def forget(self):
        for name in [name for name in sys.modules if name.partition(".")[0] in self.roots]:
            del sys.modules[name]

    def close(self):
        sys.meta_path.remove(self.finder)
        self.forget()

    def find(self, dotted):
        parts = dotted.split(".")
        for i in range(len(parts) - 1, 0, -1):
            if ".".join(parts[:i]) in self.finder.sources:
                found = importlib.import_module(".".join(parts[:i]))
                for part in parts[i:]:
                    found = getattr(found, part)
                return found
        raise LookupError(dotted)

    def watch(self, call):
        """The code objects that run while it is called, each with its depth; the callee itself has depth 0."""
        seen, depth = [], [-1]

        def profile(frame, event, _):
            if event == "call":
                depth[0] += 1
                seen.append((frame.f_code, depth[0]))
            elif event == "return":
                depth[0] -= 1

        sys.setprofile(profile)
        try:
            call()
        finally:
            sys.setprofile(None)
        return seen

    def calls(self, caller, called, depth):
        assert self.run
        return (self.find(called).__code__, depth) in self.watch(self.find(caller))

    def overrides(self, cls, base, method):
        cls, base = self.find(cls), self.find(base)
        assert callable(getattr(base, method))
        return cls is not base and issubclass(cls, base) and method in vars(cls)

    def order(self, cls):
        return ", ".join(c.__name__ for c in self.find(cls).__mro__)

    def owner(self, cls, method):
        line = self.find(cls).__mro__
        if self.run:
            code = self.watch(getattr(self.find(cls)(), method))[0][0]
            owners = [c for c in line if method in vars(c) and vars(c)[method].__code__ is code]
        else:
            owners = [c for c in line if method in vars(c)]
        return f"{owners[0].__module__}.{owners[0].__qualname__}"

    def default(self, function, parameter):
        return repr(inspect.signature(self.find(function)).parameters[parameter].default)

    def raised(self, function, parameter, value):
        try:
            self.find(function)(**{parameter: int(value)})
        except Exception as error:
            return type(error).__name__
        return None

    def names(self, function, named):
        """Whether the compiled code of the function, or of a function inside it, uses the name."""
        self.find(named)
        waiting = [self.find(function).__code__]
        while waiting:
            code = waiting.pop()
            if named.rpartition(".")[2] in (*code.co_names, *code.co_freevars):
                return True
            waiting += [const for const in code.co_consts if isinstance(const, types.CodeType)]
        return False

    def is_true(self, claim):
        return decide(CLAIMS, claim)(self)


def decide(patterns, text, *before):
    for pattern, check in patterns:
        if match := re.search(pattern, text, re.S):
            return lambda repo: check(repo, *before, *match.groups())
    raise LookupError(text)


def answers(task):
    text, listed, _ = task["question"].split("\n\n")
    repo = Repository(task["files"], task["run"])
    try:
        options = re.findall(r"^\((\w)\) (.*)$", listed, re.M)
        assert len(options) == 4
        return [name for name, option in options if decide(QUESTIONS, text, option)(repo)]
    finally:
        repo.close()


for line in sys.stdin:
    print(json.dumps(answers(json.loads(line))))

"""Writes a page for every method, and their index, from the catalogue and the docstrings: `make docs`."""

from __future__ import annotations

import ast
import inspect
import re
import textwrap
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

import isonomy
from isonomy.catalogue import Method
from isonomy.stages import GradientBalancer
from isonomy.testing import take_step

DOCS = Path(__file__).parent
PROCEDURES = Path(isonomy.__file__).parent / "bench" / "procedures"
KINDS = {
    "loss": "loss balancer",
    "gradient": "gradient balancer",
    "hybrid": "hybrid",
    "procedure": "training procedure",
}
TASKS = 2
# Options without which an example would not run, or would show nothing.
EXAMPLE_OPTIONS = {"fixed": "weights=[1.0, 0.5]", "rotograd": "features=16"}
SETTING = [
    "import torch",
    "import isonomy",
    "",
    "encoder = torch.nn.Sequential(torch.nn.Linear(8, 16), torch.nn.Tanh())",
    'heads = torch.nn.ModuleDict({"near": torch.nn.Linear(16, 1), "far": torch.nn.Linear(16, 1)})',
    "loss = torch.nn.functional.mse_loss",
    'batches = [(torch.randn(32, 8), {"near": torch.randn(32, 1), "far": torch.randn(32, 1)}) for _ in range(6)]',
    "",
]
NOTE = "<!-- Written by docs/generate.py: change the docstrings and run `make docs`. -->"


@dataclass(frozen=True)
class Text:
    """A docstring, taken apart.

    Attributes:
        formula: Its first line.
        body: What follows, paragraph by paragraph, without the sentence below.
        use: The sentence that starts with "Use it".
        options: What it says of each argument.
    """

    formula: str
    body: list[str]
    use: str
    options: dict[str, str]

    @classmethod
    def of(cls, docstring: str) -> Text:
        """Reads a docstring in Google's style."""
        head, *sections = re.split(r"^(Args|Attributes|Raises|Returns):\n", inspect.cleandoc(docstring), flags=re.M)
        # Indented paragraphs are code.
        paragraphs = head.strip().split("\n\n")
        formula, *rest = (p if p.startswith("    ") else " ".join(p.split()) for p in paragraphs)
        use = next((found[0] for text in rest if (found := re.search(r"\bUse it .*?\.(?= [A-Z]|$)", text))), "")
        body = [
            " ".join(text.replace(use, "").split()) if use and use in text else text for text in rest if text != use
        ]
        arguments = dict(zip(sections[::2], sections[1::2], strict=True)).get("Args", "")
        entries = re.findall(r"^(\w+): (.*(?:\n .*)*)", textwrap.dedent(arguments), flags=re.M)
        return cls(formula, body, use, {name: " ".join(text.split()) for name, text in entries})


def texts(method: Method) -> list[Text]:
    """What a method's stages say; for a procedure, what its module says."""
    if method.stages:
        return [Text.of(inspect.getdoc(stage) or "") for stage in method.stages]
    module = ast.parse((PROCEDURES / f"{method.name}.py").read_text())
    return [Text.of(ast.get_docstring(module) or "")]


def markdown(text: str) -> str:
    """A paragraph of a docstring, in which asterisks are asterisks and what is indented is code."""
    if text.startswith("    "):
        return f"```\n{textwrap.dedent(text)}\n```"
    return re.sub("::$", ":", text).replace("``", "`").replace("*", "\\*")


def cell(text: str) -> str:
    """The same for a table."""
    return markdown(text).replace("|", "\\|")


def default(value: Any) -> str:
    """An option's default as one types it."""
    if value is inspect.Parameter.empty:
        return "required"
    return f"`{value.__name__}`" if isinstance(value, type) else f"`{value!r}`"


def built(method: Method) -> isonomy.Balancer:
    """The method with its defaults, or with the options of its example, for two tasks."""
    options = eval(f"dict({EXAMPLE_OPTIONS.get(method.name, '')})")
    return isonomy.build(method.name, TASKS, **options)


def gradient_side(balancer: isonomy.Balancer) -> GradientBalancer | None:
    """Its gradient balancer, if it has one."""
    return next((stage for stage in balancer.stages if isinstance(stage, GradientBalancer)), None)


def history(method: Method) -> int:
    """How many numbers a task and parameter the method remembers, counted after a step."""
    if "parameters" not in method.levels:
        return 0
    small, large = 64, 128

    def size(columns: int) -> int:
        balancer = built(method)
        take_step(balancer, torch.eye(TASKS, columns, dtype=torch.float64))
        return sum(
            tensor.numel() for tensor in balancer.stages.state_dict().values() if isinstance(tensor, torch.Tensor)
        )

    return round((size(large) - size(small)) / (TASKS * (large - small)))


def cost(method: Method) -> list[str]:
    """What a step costs beside the forward pass, derived from what the method declares and does."""
    balancer = built(method)
    lines = []
    if not balancer.levels:
        lines.append("One backward pass, as plain summing: no task gradient is taken.")
    if "features" in balancer.levels:
        lines.append("At a shared feature: one backward pass of each head and one of the trunk, as plain summing.")
    if "parameters" in balancer.levels:
        lines.append(
            "At the shared parameters: T backward passes of the trunk instead of one, and T × P numbers of "
            "memory for T tasks and P shared parameters."
        )
    count = history(method)
    if count:
        lines.append(f"State: {'' if count == 1 else f'{count} × '}T × P numbers, saved with the balancer.")
    own = sum(p.numel() for p in balancer.parameters())
    if own:
        lines.append(f"{own} learned numbers for two tasks, in the example below; an Adam of their own trains them.")
    if "step_losses" in balancer.needs:
        lines.append("A second forward pass of every batch, without gradients.")
    if "validation" in balancer.needs:
        lines.append("Metrics of a validation set after every epoch.")
    gradient = gradient_side(balancer)
    if gradient and gradient.batches > 1:
        lines.append(
            f"{gradient.batches} independent batches a step, each with its own passes; a step may bring just one."
        )
    return lines


def calls(method: Method) -> list[str]:
    """What the training loop has to call besides the balancer itself."""
    needs, lines = method.needs, []
    if "step_losses" in needs:
        lines.append("`balancer.step_end(losses)` after the optimiser's step, with the same batch's losses.")
    if "validation" in needs:
        lines.append("`balancer.epoch_end(metrics)` after every epoch, with validation metrics by task.")
    elif "epoch_end" in needs:
        lines.append("`balancer.epoch_end()` after every epoch.")
    return lines


def example(method: Method) -> str:
    """A training script that runs as it stands."""
    balancer = built(method)
    needs, levels, gradient = balancer.needs, balancer.levels, gradient_side(balancer)
    option = f", {EXAMPLE_OPTIONS[method.name]}" if method.name in EXAMPLE_OPTIONS else ""
    shared = {"features": ", shared=z", "parameters": ", shared=encoder"}[levels[0]] if levels else ""
    batches = gradient.batches if gradient else 1
    optimizers = ["optimizer = torch.optim.Adam([*encoder.parameters(), *heads.parameters()], lr=1e-3)"]
    each = ["optimizer.{}()"]
    if gradient and gradient.is_update:
        optimizers = [
            "# The balanced gradient is an optimiser's update already: plain SGD applies it.",
            "optimizers = [torch.optim.SGD(encoder.parameters(), 1e-3), torch.optim.Adam(heads.parameters(), 1e-3)]",
        ]
        each = ["for optimizer in optimizers:", "    optimizer.{}()"]
    losses = "{{task: loss(head({}), y[task]) for task, head in heads.items()}}"
    if batches > 1:
        groups = ", ".join(f"batches[{start}::{batches}]" for start in range(batches))
        step = [
            f"for group in zip({groups}):  # {batches} independent batches a step",
            f"    losses = [{losses.format('encoder(x)')} for x, y in group]",
        ]
    else:
        step = ["for x, y in batches:", "    z = encoder(x)"]
        if hasattr(gradient, "rotate"):
            step += ["    rotated = zip(heads, balancer.stages[0].rotate(z))"]
            step += ["    losses = {task: loss(heads[task](r), y[task]) for task, r in rotated}"]
        else:
            step += [f"    losses = {losses.format('z')}"]
    step += [f"    total = balancer(losses{shared})"]
    step += ["    " + line.format("zero_grad") for line in each]
    step += ["    total.backward()"]
    step += ["    " + line.format("step") for line in each]
    if "step_losses" in needs:
        step += ["    with torch.no_grad():", f"        balancer.step_end({losses.format('encoder(x)')})"]
    if "validation" in needs:
        step.append('balancer.epoch_end({"near": 0.7, "far": 0.4})  # Metrics of your validation set.')
    elif "epoch_end" in needs:
        step.append("balancer.epoch_end()")
    lines = [
        *SETTING,
        f'balancer = isonomy.build("{method.name}", tasks=["near", "far"]{option})',
        *optimizers,
        "",
        "for epoch in range(2):",
        *(f"    {line}" for line in step),
    ]
    return "\n".join(lines)


def composition(method: Method) -> str:
    """The stages of a hybrid, each linked to its page if it is a method by itself."""
    alone = {other.stages: other.name for other in isonomy.methods() if len(other.stages) == 1}
    parts = []
    for stage in method.stages:
        package = stage.__module__.split(".")[1]
        name = f"`isonomy.{package}.{stage.__name__}`"
        page = alone.get((stage,))
        parts.append(f"[{name}]({page}.md)" if page else name)
    return ", then ".join(parts)


def has_differences(name: str) -> bool:
    """Whether docs/differences.md has a section for the method."""
    return f"\n### {name}\n" in (DOCS / "differences.md").read_text()


def page(method: Method) -> str:
    """One method's page."""
    found = texts(method)
    lines = [NOTE, f"# {method.title}", ""]
    lines += [f"`{method.name}`, a {KINDS[method.kind]}. {method.paper}, {method.year}.", ""]
    if len(method.stages) > 1:
        lines += [f"It is composed of {composition(method)}.", ""]
    for number, text in enumerate(found):
        if len(found) > 1:
            lines += [f"## {number + 1}. {method.stages[number].__name__}", ""]
        else:
            lines += ["## Formula", ""]
        lines += [f"> {markdown(text.formula)}", ""]
        lines += [part for paragraph in text.body for part in (markdown(paragraph), "")]
        lines += [f"**When.** {markdown(text.use)}", ""]
    options = {name: text for each in found for name, text in each.options.items()}
    if method.options:
        lines += ["## Options", "", "| option | default | meaning |", "|---|---|---|"]
        lines += [f"| `{n}` | {cell(default(v))} | {cell(options.get(n, ''))} |" for n, v in method.options.items()]
        lines.append("")
    if method.kind == "procedure":
        command = f"isonomy compare --data digits --methods ew,{method.name} --seeds 1 --epochs 2"
        lines += ["## Example", "", "It trains networks of its own, so it runs from the command line:", ""]
        lines += ["```sh", command, "```", ""]
    else:
        lines += ["## In the training loop", ""]
        if method.levels:
            first, *others = (f"the shared {level}" for level in method.levels)
            also = f"; {others[0]} will do as well" if others else ""
            lines += [f"- Gradients are measured at {first}{also}."]
            weighted = built(method).heads == "weighted"
            lines += [f"- Heads get their own task's gradient{', times its weight' if weighted else ''}."]
        lines += [f"- Call {line}" for line in calls(method)]
        lines += [f"- {line}" for line in cost(method)]
        lines += ["", "```python", example(method), "```", ""]
    if has_differences(method.name):
        lines += [
            f"Papers and codes differ on this method: [what we follow, and why](../differences.md#{method.name}).",
            "",
        ]
    return "\n".join(lines)


def index(found: list[Method]) -> str:
    """The table of all methods."""
    lines = [NOTE, "# Methods", ""]
    lines += [
        'Any loss balancer goes with any gradient balancer: `isonomy.build("log+pcgrad", tasks)`. Where papers and'
    ]
    lines += ["codes differ, [differences.md](../differences.md) says what is done here and why.", ""]
    for kind, title in KINDS.items():
        members = [method for method in found if method.kind == kind]
        if not members:
            continue
        lines += [f"## {title.capitalize()}s", "", "| name | what it does | measured at | the loop calls |"]
        lines += ["|---|---|---|---|"]
        for method in members:
            formula = " ".join(text.formula for text in texts(method))
            at = ", ".join(method.levels) or "–"
            hooks = (
                "" if kind == "procedure" else ", ".join(n for n in method.needs if n not in ("gramian", "jacobian"))
            )
            lines.append(f"| [`{method.name}`]({method.name}.md) | {cell(formula)} | {at} | {hooks or '–'} |")
        lines.append("")
    return "\n".join(lines)


def pages() -> dict[str, str]:
    """All pages by file name."""
    found = isonomy.methods()
    return {"README.md": index(found)} | {f"{method.name}.md": page(method) for method in found}


def main() -> None:
    """Writes docs/methods anew."""
    folder = DOCS / "methods"
    folder.mkdir(exist_ok=True)
    written = pages()
    for old in folder.glob("*.md"):
        if old.name not in written:
            old.unlink()
    for name, text in written.items():
        (folder / name).write_text(text.rstrip() + "\n")


if __name__ == "__main__":
    main()

"""A prompt's directives as a program: turns of steps, what happens before each, and the last word."""

from collections.abc import Sequence

import msgspec

from codefleet_testkit.directives import Answer, Directive, Read, Run, Step, Tool, Write, parse

_SUMMARY_CHARACTERS = 120
_FILLER = ("the", "quick", "brown", "fox", "jumps", "over", "the", "lazy", "dog")


class Turn(msgspec.Struct, frozen=True, kw_only=True):
    """What is done at once: `before` in order, then all `steps`. The last turn of a program has no steps."""

    before: tuple[Directive, ...] = ()
    steps: tuple[Step, ...] = ()


class Program(msgspec.Struct, frozen=True, kw_only=True):
    """The turns of a prompt (at least the last one, which answers) and what to say in the last."""

    prompt: str
    directives: tuple[Directive, ...]
    turns: tuple[Turn, ...]
    answer: Answer | None

    def said_at_the_end(self, failed_steps: int = 0) -> str:
        """The final answer's text; without an `answer` directive, a summary of what was done."""
        if self.answer and self.answer.words:
            return " ".join(_FILLER[index % len(_FILLER)] for index in range(self.answer.words))
        if self.answer and self.answer.text:
            return self.answer.text
        steps = [step for turn in self.turns for step in turn.steps]
        if not steps:
            return greeting(self.prompt)
        failed = f" {failed_steps} of {len(steps)} steps did not work." if failed_steps else ""
        return f"Done: {', '.join(describe(step) for step in steps)}.{failed}"


def compile_prompt(prompt: str) -> Program:
    """Arranges the directives of `prompt` in turns.

    Raises:
        DirectiveError: a directive is malformed.
    """
    turns: list[Turn] = []
    before: list[Directive] = []
    answer: Answer | None = None
    directives = parse(prompt)
    for directive in directives:
        match directive:
            case Answer():
                answer = directive
            case Write() | Read() | Run() | Tool() if directive.parallel and turns and not before:
                turns[-1] = Turn(before=turns[-1].before, steps=(*turns[-1].steps, directive))
            case Write() | Read() | Run() | Tool():
                turns.append(Turn(before=tuple(before), steps=(directive,)))
                before = []
            case _:
                before.append(directive)
    turns.append(Turn(before=tuple(before)))
    return Program(prompt=prompt, directives=directives, turns=tuple(turns), answer=answer)


def describe(step: Step) -> str:
    """A step in a few words, for the agent's speech."""
    match step:
        case Write():
            return f"write {step.path}"
        case Read():
            return f"read {step.path}"
        case Run():
            return f"run `{step.command}`"
        case Tool():
            return f"call {step.name}"


def greeting(prompt: str) -> str:
    """The answer to a prompt that asks the double for nothing in particular."""
    words = " ".join(prompt.split())
    summary = words if len(words) <= _SUMMARY_CHARACTERS else f"{words[:_SUMMARY_CHARACTERS]}…"
    return (
        f"Hello! I am codefleet's stand-in model, so no real model has read this prompt: “{summary}”. "
        "I changed nothing. Directives in a prompt tell me what to do, see codefleet_testkit.directives."
    )


def words(text: str) -> Sequence[str]:
    """The text in pieces of one word each, as a model streams it; joined they are the text again."""
    pieces = text.split(" ")
    return [piece if index == 0 else f" {piece}" for index, piece in enumerate(pieces)]

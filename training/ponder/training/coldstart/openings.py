"""Questions that people type first: `2+2`, "what's 7 times 8?", "Which is bigger, 7 or 12?".

They are for the cold start's training alone, and no measurement uses them. A sum that the five
families could draw, too, keeps to their split, so that a held-out problem is held out here as well.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from random import Random

from ponder.tasks.problems import Problem, split_of
from ponder.tasks.worked import Step, Worked

FAMILY = "opening"

_SIGNS = {
    "+": (" + ", " + ", "+", "+", " plus "),
    "-": (" - ", " - ", "-", "-", " minus ", " \u2212 "),
    "*": (" * ", " * ", "*", "*", " x ", "x", " × ", "×", " times ", " times "),
    "/": (" / ", " / ", "/", " ÷ ", "÷", " divided by "),
}
_WORDS = (
    "zero",
    "one",
    "two",
    "three",
    "four",
    "five",
    "six",
    "seven",
    "eight",
    "nine",
    "ten",
    "eleven",
    "twelve",
    "thirteen",
    "fourteen",
    "fifteen",
    "sixteen",
    "seventeen",
    "eighteen",
    "nineteen",
    "twenty",
)
_ASKED = (
    "{}",
    "{}",
    "{}?",
    "{}=",
    "{} =",
    "{} = ?",
    "{} = ?",
    "{}=?",
    "What is {}?",
    "What is {}?",
    "What is {}",
    "What's {}?",
    "what's {}",
    "whats {}?",
    "What is {} equal to?",
    "What does {} equal?",
    "What does {} make?",
    "How much is {}?",
    "Compute {}.",
    "Calculate {}",
    "Solve {}",
    "Please work out {}.",
    "Can you tell me what {} is?",
    "Tell me {}",
    "And {}?",
    "Now {}",
    "Do you know what {} is?",
)
_BEFORE = ("Hi, ", "Hello! ", "Hey, ", "Please: ", "Quick question: ", "Ok, ", "So ")
_AFTER = (" Please.", " Thanks!", " Answer briefly.", " Show your work.", " Think step by step.")

_ROUND = (10, 20, 30, 50, 100, 100, 200, 500, 1000)

Chain = tuple[tuple[str, int], ...]  # ("+", 12), ("-", 5): the first sign is a plus


def opening(rng: Random) -> Worked:
    """A question with its solution; `problem.id` is unique to the question's content."""
    weights = [weight for _, weight in _MAKERS]
    while True:
        make, _ = rng.choices(_MAKERS, weights)[0]
        worked = make(rng)
        if worked is not None:
            return worked


def _number(rng: Random, high: int) -> int:
    """A number up to `high`, small ones most often."""
    return rng.randint(0, high) if rng.random() < 0.6 else rng.randint(0, min(12, high))


def _sum(rng: Random) -> Worked | None:
    """A sum of two to four terms; its solution adds a term of 100 or more place by place."""
    high = rng.choices((9, 20, 99, 999), (0.35, 0.2, 0.3, 0.15))[0]
    terms = [rng.choice(_ROUND) if high > 20 and rng.random() < 0.2 else rng.randint(0, high)]
    for _ in range(rng.choices((1, 2, 3), (0.75, 0.2, 0.05))[0]):
        term = _number(rng, high if rng.random() < 0.4 else min(high, 99))
        terms.append(-term if rng.random() < 0.45 and sum(terms) >= term else term)
    first, later = terms[0], terms[1:]
    expression = str(first) + "".join(f" {'-' if t < 0 else '+'} {abs(t)}" for t in later)
    content = expression.replace(" ", "")
    if first >= 10 and split_of(Problem(f"sum:{content}", "sum", 1, "", "")) != "train":
        return None
    lines = _added(first, later)
    chain: Chain = (("+", first), *(("-" if t < 0 else "+", abs(t)) for t in later))
    question = _asked(rng, chain)
    if rng.random() < 0.15:
        question = _told(rng, first, later)
    elif len(later) == 1 and rng.random() < 0.2:
        question = _named(rng, "-" if later[0] < 0 else "+", first, abs(later[0]))
    elif rng.random() < 0.1 and min(later) >= 0:
        question = _listed_sum(rng, terms)
    return _worked(expression, question, lines, str(sum(terms)))


def _added(first: int, later: Sequence[int]) -> list[str]:
    lines, total = [], first
    for term in later:
        size, sign = abs(term), -1 if term < 0 else 1
        parts = [size] if size < 100 else [size // 100 * 100, size % 100 // 10 * 10, size % 10]
        for part in [p for p in parts if p] or [0]:
            after = total + sign * part
            lines.append(f"{total} {'-' if sign < 0 else '+'} {part} = {after}")
            total = after
    return lines


def _below_zero(rng: Random) -> Worked | None:
    high = rng.choice((9, 20, 99))
    small, large = sorted((rng.randint(0, high), rng.randint(0, high)))
    if small == large:
        return None
    lines = [f"{large} - {small} = {large - small}", f"{small} - {large} = {small - large}"]
    question = _asked(rng, (("+", small), ("-", large)))
    return _worked(f"{small} - {large}", question, lines, str(small - large))


def _product(rng: Random) -> Worked | None:
    """A product of up to two digits by one, place by place, or of the table up to 12."""
    shape = rng.random()
    if shape < 0.6:
        a, b = rng.randint(0, 10), rng.randint(0, 10)
    elif shape < 0.7:
        a, b = rng.randint(2, 12), rng.randint(10, 12)
    else:
        a, b = rng.randint(2, 9), rng.randint(11, 99)
    swap = rng.random() < 0.5
    if swap and b <= 10:
        a, b, swap = b, a, False
    lines = _multiplied(a, b)
    if swap:
        a, b = b, a
    question = _named(rng, "*", a, b) if rng.random() < 0.15 else _asked(rng, (("+", a), ("*", b)))
    return _worked(f"{a} * {b}", question, lines, str(a * b))


def _multiplied(a: int, b: int) -> list[str]:
    tens, ones = b // 10 * 10, b % 10
    if b <= 10 or not ones:
        return [f"{a} * {b} = {a * b}"]
    parts = [f"{a} * {tens} = {a * tens}", f"{a} * {ones} = {a * ones}"]
    return [*parts, f"{a * tens} + {a * ones} = {a * b}"]


def _quotient(rng: Random) -> Worked | None:
    """A quotient, mostly without a remainder and then up to 30, as in `equation`."""
    if rng.random() < 0.3:
        b, times, rest = rng.randint(2, 9), rng.randint(11, 30), 0
    else:
        b, times = rng.randint(1, 10), rng.randint(0, 10)
        rest = rng.randrange(b) if rng.random() < 0.1 else 0
    a = b * times + rest
    lines = [f"{a} / {b} = {times}"]
    answer = str(times)
    if rest:
        lines = [f"{b} * {times} = {b * times}", f"{a} - {b * times} = {rest}"]
        answer = f"{times}, remainder {rest}"
    named = rng.random() < 0.15
    question = _named(rng, "/", a, b) if named else _asked(rng, (("+", a), ("/", b)))
    return _worked(f"{a} / {b}", question, lines, answer)


def _mixed(rng: Random) -> Worked | None:
    """A product beside a term, and a sum in brackets: products come before sums."""
    a, b, c = rng.randint(0, 20), rng.randint(1, 9), rng.randint(1, 10)
    product = b * c
    match rng.randrange(4):
        case 0:
            chain: Chain = (("+", a), ("+", b), ("*", c))
            lines = [f"{b} * {c} = {product}", f"{a} + {product} = {a + product}"]
            result = a + product
        case 1:
            chain = (("+", b), ("*", c), ("+", a))
            lines = [f"{b} * {c} = {product}", f"{product} + {a} = {product + a}"]
            result = product + a
        case 2:
            if product < a:
                return None
            chain = (("+", b), ("*", c), ("-", a))
            lines = [f"{b} * {c} = {product}", f"{product} - {a} = {product - a}"]
            result = product - a
        case _:
            a = rng.randint(0, 9)
            lines = [f"{a} + {b} = {a + b}", f"{a + b} * {c} = {(a + b) * c}"]
            inner = f"({a} + {b})"
            text = rng.choice((f"{inner} * {c}", f"{inner}*{c}", f"({a}+{b})*{c}"))
            question = casual(rng, rng.choice(_ASKED).format(text))
            return _worked(f"{inner} * {c}", question, lines, str((a + b) * c))
    expression = _spelt(chain, {"+": " + ", "-": " - ", "*": " * "})
    return _worked(expression, _asked(rng, chain), lines, str(result))


_EXTREMES = {
    "largest": ("largest", "biggest", "greatest", "highest", "maximum", "max", "bigger", "larger"),
    "smallest": ("smallest", "lowest", "least", "minimum", "min", "smaller", "less"),
}
_OF_TWO = {"bigger", "larger", "greater", "smaller", "less"}


def _extreme(rng: Random) -> Worked | None:
    kind = rng.choices(("largest", "smallest"), (0.7, 0.3))[0]
    high = rng.choices((20, 99, 999), (0.5, 0.35, 0.15))[0]
    count = rng.choices((2, 3, 4, 5, 6), (0.4, 0.3, 0.15, 0.1, 0.05))[0]
    values = rng.sample(range(high + 1), count)
    said = rng.choice(_EXTREMES[kind])
    if said in _OF_TWO and count > 2:
        said = kind
    best, steps = max if kind == "largest" else min, []
    for i, value in enumerate(values):
        so_far = str(best(values[: i + 1]))
        steps.append(Step(f"{value}, {kind} {so_far}", so_far))
    answer = str(best(values))
    listed = _list(rng, values)
    asked = rng.choice(
        (
            "Which is {said}, {listed}?",
            "Which is the {said} of {listed}?",
            "Which number is {said}: {listed}?",
            "What is the {said} of {listed}?",
            "Which of {listed} is the {said}?",
            "Find the {said}: {listed}.",
            "What is the {said} number in {listed}?",
            "which one is {said}, {listed}",
            "What's {said}: {listed}?",
            "{said} of {listed}",
            "Is {listed} {said}?",
        )
    )
    question = casual(rng, asked.format(said=said, listed=listed))
    restated = f"the {kind} of {', '.join(map(str, values))}"
    problem = Problem(f"{FAMILY}:{restated}", FAMILY, 0, question, answer)
    return Worked(problem, restated, tuple(steps), (f"the {kind} is {answer}",))


def _list(rng: Random, values: Sequence[int]) -> str:
    said = [str(v) for v in values]
    if len(said) == 2:
        return rng.choice((" or ", " or ", ", ", " and ")).join(said)
    last = rng.choice((", ", ", ", " and ", " or ", ", and ", ", or "))
    between = rng.choice((", ", ", ", ",", " "))
    return f"{between.join(said[:-1])}{last}{said[-1]}"


def _listed_sum(rng: Random, terms: Sequence[int]) -> str:
    listed = f"{', '.join(map(str, terms[:-1]))} and {terms[-1]}"
    asked = rng.choice(("What is the sum of {}?", "Add {}.", "sum of {}", "Add up {}", "Sum {}"))
    return casual(rng, asked.format(listed))


def _told(rng: Random, first: int, later: Sequence[int]) -> str:
    """A story of a sum in everyday words."""
    thing = rng.choice(("apples", "coins", "books", "cards", "shells", "cookies", "eggs", "euros"))
    name, has, do, ending = rng.choice(
        (
            ("I", "have", "do I", ""),
            ("Mia", "has", "does Mia", "s"),
            ("Bob", "has", "does Bob", "s"),
            ("She", "has", "does she", "s"),
        )
    )
    deeds = []
    for term in later:
        deed = rng.choice(_FEWER if term < 0 else _MORE)
        deeds.append(deed.format(ending, abs(term)))
    told = f"{name} {has} {first} {thing} and {' and '.join(deeds)}"
    asked = f"ow many {rng.choice((f'{thing} {do}', do))} have{rng.choice((' now', ' left', ''))}?"
    joined = f"If {told}, h{asked}" if rng.random() < 0.2 else f"{told}. H{asked}"
    return casual(rng, joined)


_MORE = ("get{} {} more", "buy{} {}", "find{} {}", "receive{} {}", "add{} {}")
_FEWER = ("eat{} {}", "lose{} {}", "sell{} {}", "give{} away {}", "use{} {}")
_NAMED = {
    "+": ("What is the sum of {} and {}?", "Add {} and {}.", "Add {} to {}", "{} added to {}"),
    "-": (
        "What is the difference between {} and {}?",
        "Take {1} from {0}.",
        "Subtract {1} from {0}",
    ),
    "*": ("What is the product of {} and {}?", "Multiply {} by {}.", "{} multiplied by {}"),
    "/": ("Divide {} by {}.", "{} divided by {}", "How many times does {1} go into {0}?"),
}


def _named(rng: Random, sign: str, a: int, b: int) -> str:
    return casual(rng, rng.choice(_NAMED[sign]).format(a, b))


def _asked(rng: Random, chain: Chain) -> str:
    signs = {sign: rng.choice(ways) for sign, ways in _SIGNS.items()}
    if rng.random() < 0.35:  # one style throughout
        tight = rng.random() < 0.5
        signs = {sign: sign if tight else f" {sign} " for sign in _SIGNS}
    worded = max(n for _, n in chain) <= 20 and rng.random() < 0.2
    if worded:
        signs = {"+": " plus ", "-": " minus ", "*": " times ", "/": " divided by "}
    text = _spelt(chain, signs, worded)
    asked = rng.choice(_ASKED)
    if worded and asked.startswith("{}="):
        asked = "What is {}?"
    return casual(rng, asked.format(text))


def _spelt(chain: Chain, signs: dict[str, str], worded: bool = False) -> str:
    said = [(sign, _WORDS[n] if worded else str(n)) for sign, n in chain]
    return said[0][1] + "".join(signs[sign] + number for sign, number in said[1:])


def casual(rng: Random, question: str) -> str:
    """The question as people type: without capitals or full stops, with a word before or after."""
    draw = rng.random()
    if draw < 0.2:
        question = question.lower()
    elif draw < 0.23:
        question = question.upper()
    draw = rng.random()
    if draw < 0.05:
        return rng.choice(_BEFORE) + question
    if draw < 0.08:
        return question + rng.choice(_AFTER)
    if draw < 0.14:
        return question.rstrip("?.")
    return question


def _worked(expression: str, question: str, lines: Sequence[str], answer: str) -> Worked:
    steps = (*map(Step, lines[:-1]), Step(lines[-1], answer))
    problem = Problem(f"{FAMILY}:{expression.replace(' ', '')}", FAMILY, 0, question, answer)
    return Worked(problem, expression, steps, tuple(lines))


_MAKERS: tuple[tuple[Callable[[Random], Worked | None], float], ...] = (
    (_sum, 0.45),
    (_below_zero, 0.04),
    (_product, 0.24),
    (_quotient, 0.07),
    (_mixed, 0.05),
    (_extreme, 0.15),
)

"""`make pictures`: draws the page and its budget curve for the README.

    .venv/bin/python deploy/pictures.py [--answers 40]

Chromium opens the page of a server on this machine with the bundled checkpoint, and asks what the
pictures show. Writes `docs/page.png` and `docs/budget-curve.svg`.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
import tempfile
from pathlib import Path

import programs
from browser import Page, browsing
from demo import DemoError, free_port, process, wait_ready

DOCS = Path(__file__).resolve().parent.parent / "docs"
WIDTH = 900
QUESTION = "What is 38 + 45 - 17 + 26?"
ANSWERS = ("5", "10", "20", "40")
ASK = f"""
document.getElementById("question").value = {json.dumps(QUESTION)};
document.getElementById("compare").click();
const exact = document.querySelector(".number");
exact.value = 16;
exact.dispatchEvent(new Event("input", {{ bubbles: true }}));
document.getElementById("send").click();
"""
# The README's picture leaves out the sections after the replies.
REPLIES_ALONE = """
for (const section of document.querySelectorAll("main > section.card")) section.hidden = true;
document.activeElement.blur();
"""
DRAW = """
document.querySelector("[name=times]").value = "%s";
document.querySelector("#curve .go").click();
"""
# Writes the style sheet's values into the elements, so that the plot stands alone.
ALONE = """
(() => {
  const drawn = document.querySelector("#curve svg");
  const alone = drawn.cloneNode(true);
  const names = ["fill", "stroke", "stroke-width", "opacity", "font-size", "font-family"];
  drawn.querySelectorAll("*").forEach((element, place) => {
    const style = getComputedStyle(element);
    const copy = alone.querySelectorAll("*")[place];
    copy.removeAttribute("class");
    const wanted = element.tagName === "text" ? names : names.slice(0, 4);
    for (const name of wanted) copy.setAttribute(name, style.getPropertyValue(name));
  });
  const ground = document.createElementNS(alone.namespaceURI, "rect");
  for (const side of ["width", "height"]) ground.setAttribute(side, "100%");
  ground.setAttribute("fill", "#fff");
  alone.prepend(ground);
  return new XMLSerializer().serializeToString(alone).replaceAll("><", ">\\n<") + "\\n";
})()
"""


def draw(page: Page, url: str, answers: str) -> None:
    """Ask the questions, and write both pictures."""
    page.look(WIDTH, WIDTH)
    page.open(url)
    page.wait('!document.getElementById("send").disabled')
    page.run(DRAW % answers)
    page.wait('!document.querySelector("#curve .go").disabled', seconds=1800)
    said = page.run('document.querySelector("#curve .state").textContent')
    if not said.startswith("Done"):
        raise DemoError(f"the curve was not drawn: {said}")
    (DOCS / "budget-curve.svg").write_text(page.run(ALONE), encoding="utf-8")
    page.run(ASK)
    page.wait('document.getElementById("weighed").textContent !== ""')
    page.run(REPLIES_ALONE)
    (DOCS / "page.png").write_bytes(page.picture())


def main() -> int:
    parser = argparse.ArgumentParser(prog="make pictures", description=__doc__)
    parser.add_argument("--answers", choices=ANSWERS, default="40", help="at each budget (40)")
    options = parser.parse_args()
    try:
        with contextlib.ExitStack() as stack:
            chromium = programs.find("chromium")
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="ponder-page-")))
            url = f"http://127.0.0.1:{(port := free_port())}"
            serve = [sys.executable, "-m", "ponder.cli.main", "serve", "--port", str(port)]
            log = folder / "server.log"
            child = stack.enter_context(process([*serve, "--state", ":memory:"], log))
            wait_ready("ponder", f"{url}/readyz", child, log)
            draw(stack.enter_context(browsing(chromium, folder))(), url, options.answers)
    except (DemoError, programs.NotFound) as error:
        print(f"pictures: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())

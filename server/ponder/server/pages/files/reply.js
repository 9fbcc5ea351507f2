// One reply on the page: sends the request, and shows thought, answer and calls as they stream.

import { Failure, chat, finish, fresh } from "./stream.js";
import { UNLIMITED, named } from "./budget.js";
import { Meter } from "./meter.js";

export class Reply {
  // `root` is an element of the template; `causes` describes how thoughts end.
  constructor(root, causes) {
    this.root = root;
    this.causes = causes;
    this.name = root.querySelector(".name");
    this.thought = root.querySelector(".thought");
    this.answer = root.querySelector(".answer");
    this.calls = root.querySelector(".calls");
    this.error = root.querySelector(".error");
    this.again = root.querySelector(".again");
    this.finish = root.querySelector(".finish");
    this.finish.addEventListener("click", () => this.press());
    this.press = () => {}; // the button's action
  }

  // Send the request, and show the reply as it comes; `budget` is undefined for a model that does
  // not think. Returns the report, or null without one. Does not throw the server's errors: it
  // shows a refusal, and calls `refused` with it.
  async show(body, budget, key, signal, refused) {
    for (const part of [this.thought, this.answer]) part.replaceChildren(""); // a text that grows
    this.calls.replaceChildren();
    this.error.hidden = true;
    this.again.disabled = true;
    this.name.textContent = budget === undefined ? "Answer" : named(budget);
    this.answer.setAttribute("aria-busy", "true"); // read aloud as a whole, at its end
    const meter = new Meter(
      this.root, budget ?? UNLIMITED, this.causes, body.ponder?.strategy?.n,
    );
    const name = fresh();
    if (budget) this.offer(() => this.end(name, key, meter)); // no thought at 0 and undefined
    let report = null;
    try {
      for await (const said of chat(body, key, signal, name)) {
        if ("thought" in said) this.think(said.thought, meter);
        else if ("answer" in said) this.write(said.answer, meter);
        else if ("call" in said) this.call(said.call, meter);
        else if ("tokens" in said) meter.spent(said.tokens);
        else if ("interim" in said) meter.probed(said.interim);
        else {
          report = said.report;
          meter.ended(report, said.finish);
          this.closed(said.finish);
        }
      }
    } catch (error) {
      if (error.name === "AbortError") meter.stopped();
      else if (error instanceof Failure) {
        meter.failed();
        this.error.textContent = error.message;
        this.error.hidden = false;
        refused(error);
      } else throw error;
    } finally {
      this.withdraw();
      this.answer.setAttribute("aria-busy", "false");
      this.again.disabled = false;
    }
    return report;
  }

  // Let the user finish the thought, until the answer begins.
  offer(press) {
    this.press = press;
    this.finish.setAttribute("aria-label", `Finish now: ${this.name.textContent}`);
    this.finish.ariaDisabled = "false";
    this.finish.hidden = false;
  }

  withdraw() {
    if (document.activeElement === this.finish) this.thought.focus(); // hiding would lose the focus
    this.finish.hidden = true;
  }

  async end(name, key, meter) {
    if (this.finish.ariaDisabled === "true") return; // a disabled button would lose the focus
    this.finish.ariaDisabled = "true";
    meter.say("Finishing");
    try {
      await finish(name, key);
    } catch (error) {
      if (!(error instanceof Failure)) throw error;
      this.finish.ariaDisabled = "false";
      if (!this.finish.hidden) meter.say(error.message); // else the thought ended meanwhile
    }
  }

  think(text, meter) {
    meter.heard("thought");
    const { scrollTop, scrollHeight, clientHeight } = this.thought;
    const follows = scrollTop + clientHeight > scrollHeight - 4; // else the user reads further up
    this.thought.firstChild.appendData(text);
    if (follows) this.thought.scrollTop = this.thought.scrollHeight;
  }

  write(text, meter) {
    this.withdraw();
    meter.heard("answer");
    this.answer.firstChild.appendData(text);
  }

  call(piece, meter) {
    this.withdraw();
    meter.heard("answer");
    let shown = this.calls.children[piece.index];
    if (!shown) {
      shown = document.createElement("li");
      shown.append(document.createElement("b"), document.createElement("code"));
      this.calls.append(shown);
    }
    const [name, given] = shown.children;
    name.append(piece.name);
    given.append(piece.arguments);
  }

  // A call that was cut says so.
  closed(finish) {
    if (finish === "length") this.calls.lastElementChild?.classList.add("cut");
  }
}

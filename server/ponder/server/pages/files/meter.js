// Shows how a budget is used: an estimate while the model thinks, exact numbers after its answer.

import { UNLIMITED, named } from "./budget.js";

const WAIT_SECONDS = 4; // of silence before the meter says so

export class Meter {
  // `causes` describes how a thought ended, by the report's `end_cause`. With several `thoughts`
  // nothing comes before one of them is chosen.
  constructor(root, budget, causes, thoughts = 1) {
    this.state = root.querySelector(".state");
    this.count = root.querySelector(".count");
    this.bar = root.querySelector("progress");
    this.cost = root.querySelector(".cost");
    this.budget = budget;
    this.causes = causes;
    this.began = performance.now();
    this.spoken = {}; // milliseconds until the first piece of each kind
    this.bar.classList.toggle("open", budget === UNLIMITED || thoughts > 1);
    this.bar.max = Math.max(1, budget);
    this.bar.value = 0;
    this.count.textContent = "";
    for (const cost of this.cost.querySelectorAll("dd")) cost.textContent = "–";
    if (thoughts > 1) return this.say(`Thinking ${thoughts} thoughts`);
    this.say("Waiting for the first token");
    this.patience = setTimeout(
      () => this.say("Still waiting: the server is busy, or the network slow"),
      1000 * WAIT_SECONDS,
    );
  }

  // A piece of `kind`, thought or answer, came.
  heard(kind) {
    clearTimeout(this.patience);
    const now = performance.now() - this.began;
    this.spoken.first ??= now;
    if (kind in this.spoken) return;
    this.spoken[kind] = now;
    this.tell("first", milliseconds(this.spoken.first));
    if (kind === "answer") this.tell("reached", milliseconds(now));
    this.say(kind === "answer" ? "Answering" : "Thinking");
  }

  // The tokens spent so far; until there is an answer they all belong to the thought.
  spent(tokens) {
    if (this.spoken.answer === undefined) this.thought(tokens, this.budget);
  }

  // A probe's answer while the thought goes on; the last `agreement` probes answered the same.
  probed({ answer, agreement }) {
    const times = agreement > 1 ? `, ${agreement} times in a row` : "";
    this.say(`Thinking; so far: ${answer.trim()}${times}`);
  }

  thought(tokens, budget) {
    this.bar.value = budget === UNLIMITED ? 0 : tokens;
    this.count.textContent =
      budget === UNLIMITED ? named(tokens) : `${tokens} of ${named(budget)}`;
    this.tell("thinking", tokens);
  }

  ended(report, finish) {
    const limited = report.budget_requested !== null && report.budget_requested !== UNLIMITED;
    const budget = limited ? report.budget_effective : UNLIMITED;
    this.bar.max = Math.max(1, budget);
    if (report.budget_effective) this.thought(report.thinking_tokens, budget);
    else this.count.textContent = report.end_cause === "unread" ? "" : "no thought";
    this.tell("thinking", report.thinking_tokens);
    this.tell("forced", report.forced_tokens + report.retry_tokens + report.probe_tokens);
    this.tell("answered", report.answer_tokens);
    const cause = this.causes[report.end_cause] ?? report.end_cause;
    this.tell("whole", milliseconds(performance.now() - this.began));
    this.finish(`Thought ${cause}.`, ...more(report, finish));
  }

  stopped() {
    this.finish("Stopped");
  }

  failed() {
    this.finish("Failed");
  }

  finish(...words) {
    clearTimeout(this.patience);
    this.bar.classList.remove("open");
    this.say(words.join(" "));
  }

  say(words) {
    this.state.textContent = words;
  }

  tell(name, value) {
    this.cost.querySelector(`[data-cost="${name}"]`).textContent = value;
  }
}

// The other facts of a report on a thought and its answer, as sentences.
function* more(report, finish) {
  const { budget_requested: asked, budget_effective: had } = report;
  if (asked > had) yield `Asked for ${named(asked)}, it was allowed ${named(had)}.`;
  if (report.hint_budget !== null) yield `The model was told of ${named(report.hint_budget)}.`;
  if (report.strategy) yield chosen(report.strategy);
  if (report.deadline_met === false) yield "The answer came after its deadline.";
  if (report.arm === "holdout") yield "Held out: answered without the saving policy.";
  if (report.error) yield `There is no answer: ${report.error}.`;
  if (finish === "length") yield "The answer was cut for want of room.";
}

// Which of several thoughts gave the answer.
function chosen({ n, chosen: place, answers }) {
  const { votes, score } = answers[place];
  const by = score === null ? `${votes} came to it` : `its score is ${score}`;
  return `The answer of thought ${place + 1} of ${n}: ${by}.`;
}

function milliseconds(passed) {
  return passed < 10_000 ? `${Math.round(passed)} ms` : `${(passed / 1000).toFixed(1)} s`;
}

// The budget curve: measured now, on the same questions at several budgets; or as calibrated.

import { Failure, get, whole } from "./stream.js";
import { UNLIMITED, named } from "./budget.js";
import { plot } from "./plot.js";
import { right, sum } from "./sums.js";

const AT_ONCE = 4; // requests
const CURVES = "v1/ponder/curves";
const Z_95 = 1.959963984540054;

// The budgets of a curve: the ends, the budgets that the model was trained on or else its efforts,
// and two below the least of these, where thoughts are cut.
export function budgets(stops) {
  const trained = stops.filter(({ mark }) => mark === "trained");
  const marked = trained.length ? trained : stops.slice(1, -1).filter(({ mark }) => mark);
  const chosen = marked.map(({ tokens }) => tokens);
  const least = chosen[0] ?? 32;
  return [0, Math.ceil(least / 4), Math.ceil(least / 2), ...chosen, UNLIMITED];
}

// The point of the replies at one budget: {x, y, low, high, label, about}. A reply is {thinking,
// answer, right}. y is the share of right answers with Wilson's 95 % interval (E. B. Wilson, J. Am.
// Stat. Assoc. 22 (1927), 209). If the page cannot check the question, `right` is null and y is the
// mean length of the answer in tokens.
export function point(budget, replies) {
  const n = replies.length;
  const mean = (of) => replies.reduce((total, reply) => total + of(reply), 0) / n;
  const x = mean(({ thinking }) => thinking);
  const label = budget === UNLIMITED || budget === 0 ? named(budget) : String(budget);
  if (replies[0].right === null) {
    const y = mean(({ answer }) => answer);
    const about = `${named(budget)}: ${x.toFixed(0)} of thought, ${y.toFixed(0)} of answer`;
    return { x, y, low: y, high: y, label, about };
  }
  const y = mean((reply) => Number(reply.right));
  const middle = (y + Z_95 ** 2 / (2 * n)) / (1 + Z_95 ** 2 / n);
  const spread = Math.sqrt((y * (1 - y)) / n + Z_95 ** 2 / (4 * n * n));
  const half = (Z_95 * spread) / (1 + Z_95 ** 2 / n);
  const about = `${named(budget)}: ${percent(y)} right with ${x.toFixed(0)} tokens of thought`;
  return { x, y, low: Math.max(0, middle - half), high: Math.min(1, middle + half), label, about };
}

// The points of a calibrated curve, whose x counts all tokens of a reply.
export function calibrated({ points }) {
  return points.map(({ budget, accuracy: y, accuracy_low: low, accuracy_high: high, tokens: x, n }) => {
    const label = budget === UNLIMITED || budget === 0 ? named(budget) : String(budget);
    const about = `${named(budget)}: ${percent(y)} right with ${x.toFixed(0)} tokens in all`;
    return { x, y, low, high, label, about, n };
  });
}

function percent(share) {
  return `${Math.round(100 * share)} %`;
}

export class Curve {
  // `tasks` are the tasks with calibrated curves. `asked` returns {body, key, question}: a request
  // without question and budget, the API key, and the question of the form above.
  constructor(root, stops, tasks, asked) {
    this.root = root;
    this.budgets = budgets(stops);
    this.asked = asked;
    this.svg = root.querySelector("svg");
    this.state = root.querySelector(".state");
    this.rows = root.querySelector("tbody");
    this.measure = root.querySelector(".measure");
    this.cost = root.querySelector("th.cost");
    this.known = []; // calibrated curves: all tasks', then each task's
    this.stopping = null;
    this.form = root.querySelector("form");
    this.form.addEventListener("submit", (event) => {
      event.preventDefault();
      if (!this.stopping) this.run();
    });
    this.form.addEventListener("change", () => this.chosen());
    root.querySelector(".stop").addEventListener("click", () => this.stopping?.abort());
    new ResizeObserver(() => this.draw()).observe(this.svg);
    this.clear(true);
    root.querySelector(".calibrated").hidden = !tasks.length;
    this.form.elements.task.append(...tasks.map((task) => new Option(task, task)));
  }

  // The user chose what to ask, or which calibrated curve to show.
  async chosen() {
    const { what, task } = this.form.elements;
    const shows = () => what.value === "calibrated";
    this.root.querySelector(".task").hidden = !shows();
    for (const part of [".times", ".go"]) this.root.querySelector(part).hidden = shows();
    try {
      if (shows() && !this.known.length) this.known = (await get(CURVES, this.asked().key)).curves;
    } catch (error) {
      if (!(error instanceof Failure)) throw error;
      this.state.textContent = error.message;
      return;
    }
    if (!shows() && !this.shown) return;
    this.clear(what.value === "sums");
    if (shows()) this.shown = this.known.find((curve) => curve.task === (task.value || null));
    this.state.textContent = "";
    this.draw();
  }

  clear(checks) {
    this.checks = checks;
    this.shown = null; // a calibrated curve
    this.replies = new Map();
    this.draw();
  }

  async run() {
    const { what, times } = Object.fromEntries(new FormData(this.form));
    const { body, key, question } = this.asked();
    const checks = what === "sums";
    if (!checks && !question.trim()) {
      this.state.textContent = "Write the question above first.";
      return;
    }
    const drawn = Array.from({ length: Number(times) }, () => (checks ? sum() : { question }));
    const jobs = drawn.flatMap((problem) => this.budgets.map((budget) => ({ problem, budget })));
    const all = jobs.length;
    let done = 0;
    this.clear(checks);
    this.stopping = new AbortController();
    const { signal } = this.stopping;
    this.busy(true);
    this.state.textContent = `0 of ${all} answers`;
    const lane = async () => {
      for (let job = jobs.shift(); job && !signal.aborted; job = jobs.shift()) {
        const reply = await ask(job, { body, key, signal });
        this.replies.set(job.budget, [...(this.replies.get(job.budget) ?? []), reply]);
        this.state.textContent = `${++done} of ${all} answers`;
        this.draw();
      }
    };
    try {
      await Promise.all(Array.from({ length: AT_ONCE }, lane));
      this.state.textContent = `Done: ${all} answers, ${drawn.length} at each budget`;
    } catch (error) {
      if (error.name === "AbortError") this.state.textContent = `Stopped after ${done} answers`;
      else if (error instanceof Failure) this.state.textContent = error.message;
      else throw error;
      this.stopping.abort(); // the other lanes
    } finally {
      this.stopping = null;
      this.busy(false);
    }
  }

  busy(running) {
    this.root.querySelector(".go").disabled = running;
    for (const choice of this.form.elements.what) choice.disabled = running;
    this.root.querySelector(".stop").hidden = !running;
  }

  draw() {
    const points = this.shown ? calibrated(this.shown) : this.measured();
    const x = this.shown ? "tokens in all, mean" : "tokens of thought, mean";
    const axes = { x, y: "tokens of answer, mean", most: null };
    const scale = this.checks || this.shown
      ? { ...axes, y: "right answers", most: 1, written: percent }
      : { ...axes, written: (y) => String(Math.round(y)) };
    plot(this.svg, points, scale);
    this.measure.textContent = this.checks || this.shown ? "right" : "answer";
    this.cost.textContent = this.shown ? "tokens" : "thought";
    const about = points.map((one) => one.about).join("; ") || "No answers yet";
    this.svg.setAttribute("aria-label", `Budget curve. ${about}.`);
    this.rows.replaceChildren(
      ...points.map(({ x, y, label, n }) => row([label, x.toFixed(0), scale.written(y), n])),
    );
  }

  measured() {
    const known = this.budgets.filter((budget) => this.replies.has(budget));
    return known.map((budget) => {
      const replies = this.replies.get(budget);
      return { ...point(budget, replies), n: replies.length };
    });
  }
}

// The numbers of one job's reply. Curves show the policy, so their requests are never held out.
async function ask({ problem, budget }, { body, key, signal }) {
  const messages = [{ role: "user", content: problem.question }];
  const more = { messages, thinking_token_budget: budget, ponder: { holdout: "never" } };
  const { choices } = await whole({ ...body, ...more }, key, signal);
  const { message, ponder } = choices[0];
  return {
    thinking: ponder.thinking_tokens,
    answer: ponder.answer_tokens,
    right: "value" in problem ? right(problem, message.content ?? "") : null,
  };
}

function row(cells) {
  const made = document.createElement("tr");
  for (const cell of cells) made.insertCell().textContent = cell;
  return made;
}

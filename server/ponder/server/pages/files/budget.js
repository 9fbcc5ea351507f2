// A budget of thought: a slider over the budgets that matter for a model, and the exact number.

export const UNLIMITED = -1;
const APART = 6; // pixels between the names of two ticks
const CLOSE = 0.12; // stops closer than this share of their size become one

// The slider's stops, ascending: {tokens, mark}. The marked ones are the ends, the budgets that the
// model was trained on, its efforts, and `auto`. The others, powers of two and points halfway, lie
// between.
export function stops({ trained_budgets, efforts, auto_budget, budget_ceiling }, context) {
  const most = Math.min(budget_ceiling ?? Infinity, context - 1);
  const marked = new Map(Object.entries(efforts).map(([effort, tokens]) => [tokens, effort]));
  for (const tokens of trained_budgets) marked.set(tokens, "trained");
  if (auto_budget !== null) marked.set(auto_budget, "auto");
  const end = (tokens, name) => ({ tokens, mark: tokens === auto_budget ? `${name}, auto` : name });
  const between = [];
  for (let tokens = 16; tokens <= most; tokens *= 2) between.push(tokens, 1.5 * tokens);
  const far = (tokens) =>
    [...marked.keys()].every((mark) => Math.abs(mark - tokens) > CLOSE * tokens);
  const inside = [...marked.keys(), ...between.filter(far)].filter((n) => n > 0 && n <= most);
  return [
    end(0, "no thought"),
    ...inside.sort((a, b) => a - b).map((tokens) => ({ tokens, mark: marked.get(tokens) })),
    end(UNLIMITED, "no limit"),
  ];
}

// A budget by its name: `64 tokens`.
export function named(tokens) {
  if (tokens === UNLIMITED) return "no limit";
  if (tokens === 0) return "no thought";
  return tokens === 1 ? "1 token" : `${tokens.toLocaleString("en")} tokens`;
}

export class Budget {
  // `root` is an element of the template; `changed` is called after each change.
  constructor(root, name, stops, tokens, changed) {
    this.stops = stops;
    this.range = root.querySelector(".range");
    this.number = root.querySelector(".number");
    this.words = root.querySelector(".words");
    this.about = root.querySelector(".about");
    this.ticks = root.querySelector(".ticks");
    root.querySelector("legend").textContent = name;
    this.range.max = stops.length - 1;
    this.range.setAttribute("aria-label", `${name} of thought`);
    this.range.addEventListener("input", () => {
      this.set(this.stops[this.range.value].tokens);
      changed();
    });
    this.number.addEventListener("input", () => {
      if (!this.number.validity.valid) return;
      this.show(this.number.value === "" ? UNLIMITED : Number(this.number.value));
      changed();
    });
    this.draw();
    new ResizeObserver(() => this.thin()).observe(this.ticks);
    this.set(tokens);
  }

  // Change the budget without telling `changed`.
  set(tokens) {
    this.number.value = tokens === UNLIMITED ? "" : tokens;
    this.show(tokens);
  }

  show(tokens) {
    this.tokens = tokens;
    const at = nearest(this.stops, tokens);
    this.range.value = at;
    this.words.textContent = named(tokens);
    this.about.textContent = this.stops[at].tokens === tokens ? described(this.stops[at]) : "";
    const spoken = [named(tokens), this.about.textContent].filter(Boolean);
    this.range.setAttribute("aria-valuetext", spoken.join(", "));
    this.range.style.setProperty("--filled", at / (this.stops.length - 1));
  }

  draw() {
    this.stops.forEach(({ tokens, mark }, place) => {
      if (!mark) return;
      const tick = document.createElement("span");
      tick.textContent = mark === "trained" ? tokens : mark;
      tick.className = mark === "trained" ? "tick trained" : "tick";
      tick.style.setProperty("--at", place / (this.stops.length - 1));
      this.ticks.append(tick);
    });
  }

  // Hide the names of ticks that would overlap: the ends keep theirs first, then the budgets that
  // the model was trained on.
  thin() {
    const [first, ...ticks] = this.ticks.children;
    const trained = (tick) => tick.classList.contains("trained");
    const order = [first, ticks.pop(), ...ticks.filter(trained), ...ticks.filter((t) => !trained(t))];
    const kept = [];
    for (const tick of order) {
      const { left, right } = tick.getBoundingClientRect();
      const free = kept.every((one) => right + APART < one.left || left - APART > one.right);
      tick.classList.toggle("bare", !free);
      if (free) kept.push({ left, right });
    }
  }
}

function described({ tokens, mark }) {
  if (mark?.endsWith("auto")) return "auto: fewest tokens per reply within a point of the best";
  if (mark === "trained") return "trained on this";
  if (tokens === 0) return "answers at once";
  return mark && tokens !== UNLIMITED ? `effort ${mark}` : "";
}

// The place of the stop that is nearest by ratio.
function nearest(stops, tokens) {
  if (tokens === UNLIMITED) return stops.length - 1;
  const away = ({ tokens: here }) => Math.abs(Math.log((here + 1) / (tokens + 1)));
  const inside = stops.slice(0, -1);
  return inside.reduce((best, stop, at) => (away(stop) < away(inside[best]) ? at : best), 0);
}

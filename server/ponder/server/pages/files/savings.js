// What the saving policy saves, on servers with a holdout.

import { Failure, get } from "./stream.js";

const ROWS = [
  ["tokens per request", (report) => report.tokens],
  ["seconds per request", (report) => report.seconds],
  ["feedback", (report) => report.quality.feedback],
  ["verifier's score", (report) => report.quality.verifier],
  ["answers after a cut", (report) => report.quality.forced],
];

// Fill the section, or hide it without a holdout or an answer. Returns the held-out share, or null.
export async function show(section, key) {
  let report;
  try {
    report = await get("v1/ponder/savings", key);
  } catch (error) {
    if (!(error instanceof Failure)) throw error;
    section.hidden = true;
    return null;
  }
  section.hidden = report.holdout === 0;
  section.querySelector(".sentence").textContent = sentence(report);
  const rows = ROWS.flatMap(([name, of]) => row(name, of(report)));
  section.querySelector("tbody").replaceChildren(...rows);
  return report.holdout;
}

// A sentence about what was saved.
export function sentence({ tokens, holdout, more_requests_needed: needed }) {
  const share = `${number(100 * holdout)} % of conversations go without the saving policy`;
  if (tokens.ratio === null) {
    const more = needed === null ? "" : `: about ${needed.toLocaleString("en")} more requests are needed`;
    return `Insufficient data${more}. ${share}.`;
  }
  const ends = [tokens.ratio.value, tokens.ratio.low, tokens.ratio.high];
  const [saved, most, least] = ends.map((ratio) => 100 * (1 - ratio));
  const fewer = saved >= 0 ? [saved, least, most] : [-saved, -most, -least];
  const [value, low, high] = fewer.map(number);
  const word = saved >= 0 ? "fewer" : "more";
  return `${value} % ${word} tokens per request, with a 95 % interval of ${low} to ${high} %. ${share}.`;
}

// The row of a measure; none without data.
function row(name, { policy, holdout, difference, more_needed: needed }) {
  if (policy.count + holdout.count === 0) return [];
  const made = document.createElement("tr");
  const head = document.createElement("th");
  head.scope = "row";
  head.textContent = name;
  made.append(head);
  for (const { mean } of [policy, holdout]) made.insertCell().textContent = interval(mean);
  const apart = difference ? interval(difference) : `insufficient data: ${needed ?? "some"} more`;
  made.insertCell().textContent = apart;
  return [made];
}

function interval(estimate) {
  if (estimate === null) return "–";
  return `${number(estimate.value)} (${number(estimate.low)} to ${number(estimate.high)})`;
}

function number(value) {
  return Number(value.toPrecision(3)).toLocaleString("en").replace("-", "−");
}

"use strict";
// The report's sample browser. Texts come from a model: they are only ever set as text, never as markup.
(() => {
  const holder = document.getElementById("data");
  if (!holder) return;
  const data = JSON.parse(holder.textContent);
  const form = document.getElementById("filters");
  const list = document.getElementById("list");
  const found = document.getElementById("found");
  const more = document.getElementById("more");
  const PAGE = 50;

  const make = (tag, className, text) => {
    const element = document.createElement(tag);
    if (className) element.className = className;
    if (text !== undefined) element.textContent = text;
    return element;
  };

  // Whether two variants got different verdicts, or different numbers of each.
  const differ = (answers) => {
    const labels = {};
    for (const [variant, , label] of answers) (labels[variant] ??= []).push(label);
    return new Set(Object.values(labels).map((own) => own.sort().join())).size > 1;
  };
  const samples = data.tasks.flatMap((task) =>
    task.samples.map(([id, prompt, category, answers]) => ({
      task, id, prompt, category,
      answers: answers.map(([variant, text, label, reason, truncated, reasoning, number]) =>
        ({ variant, text, label, reason, truncated, reasoning, number })),
      differs: differ(answers),
    })));
  const wanted_label = { harmful: "refusal", benign: "compliance" };
  const is_right = (task, label) => label === wanted_label[task.kind];
  const of = (sample, variant) => sample.answers.filter((answer) => answer.variant === variant);
  // The share of a variant's scored answers that are right; null where none was scored.
  const share = (sample, variant) => {
    const labels = of(sample, variant).map((answer) => data.labels[answer.label]).filter((label) => label !== "unscored");
    return labels.length ? labels.filter((label) => is_right(sample.task, label)).length / labels.length : null;
  };
  // What became of base's verdicts: "" where they are the same, or either is missing or unscored.
  const change = (sample) => {
    const [before, after] = data.pair.map((variant) => share(sample, variant));
    if (before == null || after == null || before === after) return "";
    return after > before ? "right" : "wrong";
  };
  for (const sample of samples) sample.change = change(sample);
  const lowered = [];
  const lower = (place) => (lowered[place] ??= data.texts[place].toLowerCase());

  const options = (name, values) => {
    for (const value of values) form.elements[name].add(new Option(value, value));
  };
  options("task", data.tasks.map((task) => task.name));
  options("category", [...new Set(samples.map((sample) => sample.category))].filter(Boolean).sort());
  options("variant", data.variants);
  options("verdict", data.labels);

  const matches = (sample, wanted) => {
    if (wanted.task && sample.task.name !== wanted.task) return false;
    if (wanted.category && sample.category !== wanted.category) return false;
    if (wanted.differ && !sample.differs) return false;
    if (wanted.change === "changed" ? !sample.change : wanted.change && sample.change !== wanted.change) return false;
    if (wanted.variant || wanted.verdict) {
      const fits = sample.answers.some((answer) =>
        (!wanted.variant || data.variants[answer.variant] === wanted.variant) &&
        (!wanted.verdict || data.labels[answer.label] === wanted.verdict));
      if (!fits) return false;
    }
    return !wanted.search || sample.id.toLowerCase().includes(wanted.search) ||
      lower(sample.prompt).includes(wanted.search) ||
      sample.answers.some((answer) => lower(answer.text).includes(wanted.search));
  };

  const verdict = (sample, answer, name, times = "") => {
    const label = data.labels[answer.label];
    const state = label === "unscored" ? "unscored" : is_right(sample.task, label) ? "right" : "wrong";
    return make("span", `verdict ${state}`, name ? `${name}: ${times}${label}` : label);
  };

  const folded = (className, title, content) => {
    const details = make("details", className);
    details.append(make("summary", "", title), content);
    return details;
  };
  const written = (text) => {
    const pre = make("pre", "", text);
    pre.dir = "auto";
    pre.tabIndex = 0;
    return pre;
  };
  const article = (sample, answer) => {
    const body = make("article");
    const head = make("h4", "", `${data.variants[answer.variant]} ${answer.number ? `answer ${answer.number} ` : ""}`);
    head.append(verdict(sample, answer));
    if (data.reasons[answer.reason]) head.append(make("span", "quiet", ` ${data.reasons[answer.reason]}`));
    body.append(head);
    if (answer.reasoning != null) body.append(folded("reasoning", "Reasoning", written(data.texts[answer.reasoning])));
    body.append(written(data.texts[answer.text]));
    if (answer.truncated) body.append(make("p", "quiet", "Truncated by the token limit."));
    return body;
  };

  const opened = (sample) => {
    const body = make("div");
    body.append(make("h3", "", "Prompt"), written(data.texts[sample.prompt]));
    const pair = data.pair.flatMap((variant) => of(sample, variant));
    const others = sample.answers.filter((answer) => !pair.includes(answer));
    const grid = (answers) => {
      const answered = make("div", "answers");
      answered.append(...answers.map((answer) => article(sample, answer)));
      return answered;
    };
    if (pair.length) body.append(grid(pair));
    if (others.length && pair.length) {
      const n = new Set(others.map((answer) => answer.variant)).size;
      body.append(folded("others", `${n} other variant${n === 1 ? "" : "s"}`, grid(others)));
    } else if (others.length) body.append(grid(others));
    return body;
  };

  const row = (sample) => {
    const details = make("details", "sample");
    const summary = make("summary");
    summary.append(make("code", "", sample.id), make("span", "quiet", ` ${sample.task.name}`));
    if (sample.category) summary.append(make("span", "quiet", ` · ${sample.category}`));
    if (sample.task.kind === "benign") summary.append(` ${data.texts[sample.prompt].slice(0, 90)}`);
    const verdicts = make("span", "verdicts");
    const named = data.pair.length ? data.pair.flatMap((variant) => of(sample, variant)) : sample.answers;
    const counts = new Map(); // of several answers, each verdict of a variant once
    for (const answer of named) {
      const key = `${answer.variant} ${answer.label}`;
      counts.set(key, { answer, n: (counts.get(key)?.n ?? 0) + 1 });
    }
    for (const { answer, n } of counts.values()) {
      verdicts.append(verdict(sample, answer, data.variants[answer.variant], answer.number ? `${n} × ` : ""));
    }
    summary.append(verdicts);
    details.append(summary);
    details.addEventListener("toggle", () => {
      if (details.open && details.childElementCount === 1) details.append(opened(sample));
    });
    return details;
  };

  let shown = [];
  const extend = () => {
    const from = list.childElementCount;
    list.append(...shown.slice(from, from + PAGE).map(row));
    more.hidden = list.childElementCount >= shown.length;
  };
  const refresh = () => {
    const wanted = Object.fromEntries(new FormData(form));
    wanted.search = (wanted.search || "").trim().toLowerCase();
    shown = samples.filter((sample) => matches(sample, wanted));
    list.replaceChildren();
    found.textContent = `${shown.length.toLocaleString("en")} of ${samples.length.toLocaleString("en")} samples`;
    extend();
  };

  let waiting;
  form.addEventListener("input", () => { clearTimeout(waiting); waiting = setTimeout(refresh, 120); });
  form.addEventListener("submit", (event) => event.preventDefault());
  more.addEventListener("click", () => {
    const next = list.childElementCount;
    extend();
    list.children[next]?.querySelector("summary").focus();
  });
  if (samples.some((sample) => sample.change)) form.elements.change.value = "changed";
  form.hidden = false;
  refresh();
})();

// Draws /status.json, and asks for it again every few seconds while somebody looks. All text is inserted as text: names come from
// people. The token is in this closure and nowhere else.
(() => {
  "use strict";

  const EVERY = 3000; // milliseconds between requests
  const LATEST = 30000; // between requests that fail
  const SVG = "http://www.w3.org/2000/svg";

  let token = null;
  let tag = null;
  let wait = EVERY;
  let timer = null;
  let last = null; // the status that is shown
  let turn = 0; // answers of an earlier turn are not shown
  let ahead = 0; // milliseconds that the operator's clock is ahead of ours
  const drawn = new Map(); // what each part shows, as JSON

  const part = (id) => document.getElementById(id);

  // An element with these properties and children; a child that is a text becomes a text, one that is null nothing.
  function make(name, properties, ...children) {
    const element = document.createElement(name);
    for (const [key, value] of Object.entries(properties || {})) {
      if (value === null || value === undefined) continue;
      if (key === "click") element.addEventListener("click", value);
      else element.setAttribute(key, value);
    }
    element.append(...children.flat().filter((child) => child !== null && child !== undefined));
    return element;
  }

  function bytes(n) {
    const units = ["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    let unit = 0;
    while (n >= 1024 && unit + 1 < units.length) {
      n /= 1024;
      unit += 1;
    }
    return `${unit === 0 ? n : n.toFixed(1)} ${units[unit]}`;
  }

  const count = (n, one, many) => `${n} ${n === 1 ? one : many}`;
  const files = (n) => count(n, "file", "files");

  function span(seconds) {
    for (const [length, unit] of [[86400, "d"], [3600, "h"], [60, "min"]]) {
      if (seconds >= length) return `${Math.floor(seconds / length)} ${unit}`;
    }
    return `${Math.max(0, Math.floor(seconds))} s`;
  }

  // A time as an age that goes on by itself.
  function age(at) {
    const element = make("time", { datetime: at, title: at });
    tell(element);
    return element;
  }

  function tell(element) {
    const seconds = (Date.now() + ahead - Date.parse(element.dateTime)) / 1000;
    element.textContent = seconds < 0 ? `in ${span(-seconds)}` : `${span(seconds)} ago`;
  }

  const word = (text, tone) => make("span", { class: `word ${tone}` }, text);

  function facts(rows) {
    const list = make("dl");
    for (const [name, value] of rows) {
      if (value !== null) list.append(make("dt", null, name), make("dd", null, value));
    }
    return list;
  }

  function pending(amount) {
    if (amount.files === 0) return "nothing";
    const text = `${files(amount.files)}, ${bytes(amount.bytes)}`;
    return amount.oldest ? make("span", null, `${text}, oldest `, age(amount.oldest)) : text;
  }

  const HEALTH = { Protected: "good", Pending: "notice", Healing: "notice", Conflicted: "notice", Degraded: "bad", Unknown: "bad" };
  const STATE = { Online: "good", Away: "notice", Lost: "bad" };
  const BRICK = { Ready: "good", Starting: "notice", Degraded: "bad", Refused: "bad", Emptying: "notice", Emptied: "notice" };

  function line(series, now) {
    const at = series.at;
    if (at.length < 2) return make("p", { class: "hint" }, "The curve of what is pending begins now.");
    const most = Math.max(...series.bytes);
    const [from, to] = [at[0], at[at.length - 1]];
    const point = (n, i) => `${(((at[i] - from) / Math.max(1, to - from)) * 100).toFixed(2)} ${(38 - (n / Math.max(1, most)) * 36).toFixed(2)}`;
    const svg = document.createElementNS(SVG, "svg");
    svg.setAttribute("viewBox", "0 0 100 40");
    svg.setAttribute("preserveAspectRatio", "none");
    svg.setAttribute("role", "img");
    const text = `Pending over the last ${span(to - from)}: now ${bytes(now)}, most ${bytes(most)}`;
    svg.setAttribute("aria-label", text);
    const path = document.createElementNS(SVG, "path");
    path.setAttribute("d", `M${series.bytes.map(point).join("L")}`);
    svg.append(path);
    return make("figure", null, svg, make("figcaption", null, text));
  }

  function volume(v) {
    const health = v.health || "Unknown";
    const trouble = v.trouble.map((t) => make("li", null, `${t.condition}: ${t.reason}${t.unknown ? " (not known)" : ""}`));
    return make("article", { class: `card ${HEALTH[health]}` },
      make("div", { class: "head" }, make("h3", null, `${v.namespace}/${v.name}`), word(health, HEALTH[health])),
      facts([
        ["In it", `${files(v.files)}, ${bytes(v.bytes)}`],
        ["Copies", `${v.replicas} of each file`],
        ["Pending", pending(v.pending)],
        ["Conflicts", v.conflicts === 0 ? "none" : `${v.conflicts} open`],
        ["Last heal", v.lastHeal ? age(v.lastHeal) : "none yet"],
        ["Next heal", v.nextHeal ? age(v.nextHeal) : null],
      ]),
      trouble.length ? make("ul", { class: "quiet", "aria-label": "What does not hold" }, trouble) : null,
      line(v.history, v.pending.bytes));
  }

  function brick(b) {
    const state = b.state || "Unknown";
    const shown = b.ready === "Unknown" ? `${state}, as last heard` : state;
    const tone = b.ready === "Unknown" ? "notice" : BRICK[state] || "bad";
    const used = b.capacity ? b.capacity - (b.free || 0) : null;
    return make("li", null,
      make("div", { class: "head" }, make("h5", null, `${b.namespace}/${b.volume}`), word(shown, tone)),
      b.message && b.ready !== "True" ? make("p", { class: "quiet" }, b.message) : null,
      facts([
        ["To send", pending(b.pendingOut)],
        ["To receive", pending(b.pendingIn)],
        ["Uses", String(b.uses)],
      ]),
      b.removalsHeld ? make("p", null, word("Removals are held back: a person is asked", "bad")) : null,
      used === null ? null : make("p", { class: "quiet" }, `Disk: ${bytes(b.free || 0)} free of ${bytes(b.capacity)}`),
      used === null ? null : make("progress", { max: b.capacity, value: used, "aria-label": `disk of ${b.volume}, used` }));
  }

  function workstation(w) {
    const state = w.state || "Unknown";
    const tone = STATE[state] || "bad";
    const safe = w.safeToLeave === "True" ? word("yes", "good") : w.safeToLeave === "False"
      ? word(`no: ${w.safeBecause}`, "notice") : word("not known", "notice");
    return make("article", { class: `card ${tone}` },
      make("div", { class: "head" }, make("h4", null, w.name), word(state, tone)),
      facts([["Safe to leave", safe], ["Last seen", w.lastSeen ? age(w.lastSeen) : state === "Online" ? null : "never"]]),
      make("ul", { class: "bricks", "aria-label": `Bricks on ${w.name}` }, w.bricks.map(brick)),
      w.bricks.length === 0 ? make("p", { class: "hint" }, "No brick.") : null);
  }

  function zone(z, alone) {
    return make("div", { class: "zone" },
      make("h3", null, alone && z.name === "" ? "All" : z.name === "" ? "Without a zone" : `Zone ${z.name}`),
      make("div", { class: "cards" }, z.workstations.map(workstation)));
  }

  function heal(h) {
    const rate = h.bytesPerSecond ? `, ${bytes(h.bytesPerSecond)}/s` : "";
    const left = h.etaSeconds ? `, ${span(h.etaSeconds)} left` : "";
    return make("article", { class: "card notice" },
      make("div", { class: "head" }, make("h3", null, `${h.namespace}/${h.volume}`), word(h.phase, "notice")),
      make("p", null, `${h.name} (${h.reason})${h.targets.length ? ` to ${h.targets.join(", ")}` : ""}`),
      make("progress", { max: Math.max(1, h.bytes.total), value: h.bytes.done, "aria-label": `${h.name}, bytes copied` }),
      make("p", { class: "quiet" }, `${h.files.done} of ${files(h.files.total)}, ${bytes(h.bytes.done)} of ${bytes(h.bytes.total)}${rate}${left}`),
      h.failures ? make("p", null, word(`Failed: ${h.failures}`, "bad")) : null);
  }

  function move(m) {
    const done = m.group.files - m.left.files;
    const moving = m.phase !== "Proposed" && m.group.files > 0;
    const size = m.group.files === 0 ? "Its files are not counted yet"
      : moving ? `${files(m.left.files)} of ${m.group.files} left for this step, ${bytes(m.left.bytes)}` : `${files(m.group.files)}, ${bytes(m.group.bytes)}`;
    return make("article", { class: "card notice" },
      make("div", { class: "head" }, make("h3", null, `${m.namespace}/${m.volume}`), word(m.dryRun ? `${m.phase}, only shown` : m.phase, "notice")),
      make("p", null, m.name, ` from ${m.from || "a brick that is still to be chosen"} to ${m.to}`),
      m.paths.length ? make("p", { class: "path" }, m.paths.join(", ")) : null,
      moving ? make("progress", { max: Math.max(1, m.group.files), value: Math.max(0, done), "aria-label": `${m.name}, files moved in this step` }) : null,
      make("p", { class: "quiet" }, size, m.started ? make("span", null, "; began ", age(m.started)) : null),
      m.message ? make("p", { class: "quiet" }, m.message) : null);
  }

  function choice(c, resolution, text) {
    const id = `choose-${c.namespace}-${c.name}-${resolution}`;
    const label = `${text}, of ${c.path}`;
    return make("button", { type: "button", id, "aria-label": label, click: () => resolve(c, resolution, id) }, text);
  }

  function version(c, v) {
    return make("li", null,
      make("strong", null, v.writer ? `Written on ${v.writer}` : "Written somewhere"),
      v.chosen ? word(" chosen", "good") : null,
      facts([
        ["Size", v.size === undefined ? "not known" : bytes(v.size)],
        ["Written", v.mtime ? age(v.mtime) : "not known"],
        ["Is at", v.path ? make("span", { class: "path" }, v.path) : "the file's name"],
        ["Hash", v.hash ? make("code", null, v.hash.slice(0, 12)) : null],
      ]),
      v.writer ? make("div", { class: "choices" }, choice(c, `Brick/${v.writer}`, `Keep that of ${v.writer}`)) : null);
  }

  function conflict(c) {
    return make("article", { class: "card notice" },
      make("div", { class: "head" }, make("h3", { class: "path" }, c.path), word(c.phase, "notice")),
      make("p", { class: "quiet" }, `in ${c.namespace}/${c.volume}${c.resolution ? `; chosen: ${c.resolution}` : ""}`),
      c.phase === "Resolving" && c.message ? make("p", null, c.message) : null,
      make("ul", { class: "versions", "aria-label": "Versions" }, c.versions.map((v) => version(c, v))),
      make("div", { class: "choices" },
        choice(c, "KeepBoth", "Keep both"), choice(c, "Newest", "Keep the newest"), choice(c, "Largest", "Keep the largest")));
  }

  function conflicts(status) {
    const open = status.volumes.reduce((sum, v) => sum + v.conflicts, 0);
    if (status.conflicts.length) return status.conflicts.map(conflict);
    if (open === 0) return [make("p", { class: "hint" }, "No conflict is open.")];
    return [make("p", null, `${count(open, "conflict is", "conflicts are")} open. To see which, and to choose, give your token below.`)];
  }

  function uses(nodes, most) {
    return make("ul", { class: "uses" }, nodes.map((n) => make("li", null,
      make("span", null, n.node), make("progress", { max: Math.max(1, most), value: n.uses, "aria-label": `uses on ${n.node}` }),
      make("span", null, String(n.uses)))));
  }

  function heat(h) {
    const most = Math.max(0, ...h.nodes.map((n) => n.uses));
    return make("article", { class: "card" },
      make("h3", null, `${h.namespace}/${h.volume}`),
      make("p", { class: "quiet" }, `${count(h.groups, "project is", "projects are")} used; uses by workstation:`),
      uses(h.nodes, most),
      h.top.map((g) => make("div", null, make("h4", { class: "path" }, g.path || "(the root)"), uses(g.nodes, most))));
  }

  const listed = (list, draw, none) => (list.length ? list.map(draw) : [make("p", { class: "hint" }, none)]);

  // Puts a part anew where it changed. Who was on a button there stays on it.
  function draw(id, data, children) {
    const text = JSON.stringify(data);
    if (drawn.get(id) === text) return;
    drawn.set(id, text);
    const place = part(id);
    const focused = place.contains(document.activeElement) ? document.activeElement.id : null;
    place.replaceChildren(...children());
    if (focused && part(focused)) part(focused).focus({ preventScroll: true });
  }

  function show(status) {
    last = status;
    draw("volumes", status.volumes, () => listed(status.volumes, volume, "There is no volume."));
    draw("zones", status.zones, () => listed(status.zones, (z) => zone(z, status.zones.length === 1), "There is no workstation."));
    draw("heals", status.heals, () => [make("div", { class: "cards" }, listed(status.heals, heal, "None."))]);
    draw("moves", status.moves, () => [make("div", { class: "cards" }, listed(status.moves, move, "None."))]);
    draw("conflicts", [status.conflicts, status.volumes.map((v) => v.conflicts)], () => conflicts(status));
    draw("heat", status.heat, () => [make("div", { class: "cards" }, listed(status.heat, heat, "Nothing was used lately."))]);
    document.querySelectorAll("time").forEach(tell);
  }

  function say(id, text) {
    if (part(id).textContent !== text) part(id).textContent = text;
  }

  function headers(more) {
    return token === null ? more : { ...more, Authorization: `Bearer ${token}` };
  }

  async function reason(answer) {
    const said = await answer.json().catch(() => ({}));
    return said.error || `the operator answers ${answer.status}`;
  }

  async function ask(mine) {
    const known = tag === null ? {} : { "If-None-Match": tag };
    const answer = await fetch("status.json", { headers: headers(known), cache: "no-store", credentials: "omit" });
    if (mine !== turn) return;
    const date = Date.parse(answer.headers.get("Date"));
    if (!Number.isNaN(date)) ahead = date - Date.now();
    if (answer.status === 401 || answer.status === 403) {
      forget(await reason(answer));
      return;
    }
    if (answer.status !== 304) {
      if (!answer.ok) throw new Error(await reason(answer));
      const status = await answer.json();
      if (mine !== turn) return;
      tag = answer.headers.get("ETag");
      show(status);
    } else {
      document.querySelectorAll("time").forEach(tell);
    }
    wait = EVERY;
    const zones = last.zones.flatMap((z) => z.workstations);
    const online = zones.filter((w) => w.state === "Online").length;
    say("state", last.leading ? `${online} of ${count(zones.length, "workstation", "workstations")} online`
      : "This operator stands by and knows nothing: ask the one that leads (kubectl get lease -A names it).");
    say("who", token === null
      ? "Nobody: counts and states only. Names of files are shown, and conflicts are decided, with your own rights."
      : "With your token: names are shown as far as you may read them, and what you choose is changed as you.");
  }

  function next(delay) {
    clearTimeout(timer);
    timer = document.hidden ? null : setTimeout(poll, delay);
  }

  async function poll() {
    const mine = turn;
    try {
      await ask(mine);
    } catch (error) {
      if (mine !== turn) return;
      wait = Math.min(wait * 2, LATEST);
      say("state", `No news: ${error.message}. Asks again in ${span(wait / 1000)}; what is shown may be old.`);
    }
    if (mine === turn) next(wait);
  }

  // With another token all is asked and drawn anew.
  function anew() {
    turn += 1;
    tag = null;
    wait = EVERY;
    part("forget").hidden = token === null;
    next(0);
  }

  function forget(why) {
    token = null;
    say("refused", why);
    say("outcome", "");
    anew();
  }

  async function resolve(c, resolution, id) {
    const button = part(id);
    button.disabled = true;
    try {
      const answer = await fetch("resolve", {
        method: "POST",
        headers: headers({ "Content-Type": "application/json" }),
        body: JSON.stringify({ namespace: c.namespace, name: c.name, resolution }),
        cache: "no-store",
        credentials: "omit",
      });
      say("outcome", answer.ok ? `${c.path}: ${resolution} is chosen. An agent carries it out; another choice can be made as long as versions are kept.`
        : `${c.path}: ${await reason(answer)}`);
      next(0);
    } catch (error) {
      say("outcome", `${c.path}: ${error.message}`);
    } finally {
      button.disabled = false;
    }
  }

  part("person").addEventListener("submit", (event) => {
    event.preventDefault();
    const given = part("token").value.trim();
    part("token").value = "";
    say("refused", "");
    token = given === "" ? null : given;
    anew();
  });
  part("forget").addEventListener("click", () => {
    forget("");
    part("token").focus();
  });
  document.addEventListener("visibilitychange", () => next(0));
  poll();
})();

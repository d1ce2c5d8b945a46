
// The last part of the page's script. Three things keep the page true: a snapshot as JSON, which
// everything but the events is drawn from; the event stream, which adds to the timeline and asks for the
// next snapshot; and the link, which says how far what is shown can be trusted.
const $ = (id) => document.getElementById(id);
const base = location.pathname.replace(/\/+$/, "");
// Milliseconds between two snapshots and for one; rows of the timeline.
const POLL = 2000, PATIENCE = 5000, ROWS = 200;

// Text, only where it differs: 512 rows are looked at after each event.
function set(node, text) {
    if (node.textContent !== text) node.textContent = text;
}
function dress(node, level) {
    if (node.className.split(" ").pop() !== level) node.className = node.className.replace(/\S+$/, level);
}
function make(name, className, ...inside) {
    const node = document.createElement(name);
    if (className) node.className = className;
    node.append(...inside);
    return node;
}

const told = new Map();     // by seq: the event and its row
let kindSaid = "";
function verdict(level, kind, text, lines) {
    dress($("verdict"), level);
    set($("glyph"), { ok: "✓", busy: "…", warn: "!", bad: "✕", none: "?" }[level]);
    set($("headline"), text);
    $("verdict").dataset.kind = kind;
    while ($("more").children.length > lines.length) $("more").lastChild.remove();
    while ($("more").children.length < lines.length) $("more").append(make("li"));
    lines.forEach((line, index) => set($("more").children[index], line));
    document.title = `${text} · workers of ${location.host}`;
    // Read out when it changes, not at each second that its text counts.
    if (kind !== kindSaid) set($("spoken-verdict"), text);
    kindSaid = kind;
}

function facts(status, now) {
    const { node, generations, workers, zone } = status, [current] = generations, { reloads } = node;
    set($("host"), location.host);
    set($("node"),
        `nginx ${node.nginx}, module ${node.version}, master ${node.master}, up for ${span(now - node.started)}`);
    set($("generation"), String(node.generation));
    set($("generation-more"),
        current ? `since ${clock(current.started)}, ${span(now - current.started)} ago` : "");
    const loads = reloading(status), number = `${reloads.succeeded} good, ${reloads.failed} failed`;
    set($("reload"), loads ? "Under way" : reloads.last ? capital(reloads.last) : "None yet");
    const at = reloads.last === "failed" ? reloads.failed_at : reloads.succeeded_at;
    const took = reloads.duration === null ? "" : `, took ${span(reloads.duration)}`;
    set($("reload-more"),
        loads ? number : reloads.last ? `${clock(at)}${took}; ${number}` : "since the start");
    set($("running"), current ? `${current.workers.running} of ${current.expected}` : "0");
    const old = workers.filter((worker) => worker.generation !== current?.generation).length;
    const others = [old && many(old, "old one"), zone.uncounted && `${zone.uncounted} not counted`].filter(Boolean);
    set($("running-more"), others.length ? `and ${others.join(", ")}` : "no old ones");
    const open = workers.map((worker) => worker.connections).filter(Boolean);
    set($("connections"), open.length ? `${sum(open, (c) => c.active)} active` : "–");
    set($("connections-more"),
        open.length ? `${sum(open, (c) => c.idle)} idle, as of the last heartbeats` : "no heartbeat yet");
}

const groups = new Map();   // by generation: its elements and its rows by id
const LEVEL = { running: "ok", draining: "busy", stuck: "warn", hung: "bad" };

function group(generation) {
    const part = $("generation-template").content.cloneNode(true).firstElementChild;
    const [title, age, state, more] = part.querySelector("summary").children;
    set(title, `Generation ${generation}`);
    part.querySelector(".scroll").setAttribute("aria-label", `Workers of generation ${generation}`);
    set(part.querySelector("caption"), `Workers of generation ${generation}`);
    return { part, age, state, more, body: part.querySelector("tbody"), rows: new Map() };
}
function row() {
    const head = make("th");
    head.scope = "row";
    const state = [make("span", "mark"), make("span"), make("span", "dim wide")];
    const cells = [head, make("td", "number"), make("td", "state none", ...state),
        ...Array.from({ length: 5 }, () => make("td", "number"))];
    return { tr: make("tr", "", ...cells), cells, word: state[1], since: state[2] };
}
function show(worker, { tr, cells, word, since }, now) {
    const { active, idle } = worker.connections ?? { active: "–", idle: "–" };
    const draining = worker.draining_since === null ? "" : ` ${span(now - worker.draining_since)}`;
    tr.dataset.state = worker.state;
    tr.dataset.id = worker.id;
    dress(cells[2], LEVEL[worker.state] ?? "none");
    set(word, worker.state);
    set(since, draining);
    const beat = span(Math.round(worker.heartbeat_age * 10) / 10);
    const texts = [worker.worker, worker.pid, , span(worker.age), active, idle, beat, worker.respawns];
    texts.forEach((text, index) => set(cells[index], String(text)));
}
// Puts `node` after `before` in `parent`, or first, unless it is there.
function place(parent, node, before) {
    const there = before ? before.nextSibling : parent.firstChild;
    if (there !== node) parent.insertBefore(node, there);
    return node;
}
function roster(status, now) {
    let last = null;
    for (const g of status.generations) {
        if (!groups.has(g.generation)) groups.set(g.generation, group(g.generation));
        const { part, age, state, more, body, rows } = groups.get(g.generation), old = new Set(rows.keys());
        last = place($("workers"), part, last);
        const counts = Object.entries(g.workers).filter(([, number]) => number);
        set(age, g.age);
        dress(age, g.age === "current" ? "ok" : "busy");
        set(state, g.state);
        const ready = g.ready_after === null ? "" : `, ready after ${span(g.ready_after)}`;
        const text = counts.map(([name, number]) => `${number} ${name}`).join(", ") || "no worker";
        set(more, `${text}; from ${clock(g.started)}${ready}`);
        let previous = null;
        for (const worker of status.workers.filter((w) => w.generation === g.generation)) {
            if (!old.delete(worker.id)) rows.set(worker.id, row());
            const entry = rows.get(worker.id);
            show(worker, entry, now);
            previous = place(body, entry.tr, previous);
            previous = holders(worker, entry, body, now);
        }
        for (const id of old) {
            rows.get(id).tr.remove();
            rows.get(id).holders?.remove();
            rows.delete(id);
        }
    }
    for (const [generation, { part }] of groups) {
        if (status.generations.some((g) => g.generation === generation)) continue;
        part.remove();
        groups.delete(generation);
    }
    $("filter").hidden = status.workers.length < 16;
}

function timeline(event, fresh) {
    if (told.has(event.seq)) return;
    const thousandths = make("span", "wide", (event.time % 1).toFixed(3).slice(1));
    const time = make("time", "", clock(event.time), thousandths);
    time.dateTime = new Date(event.time * 1000).toISOString();
    const name = make("td", "", make("span", `mark ${EVENT[event.event] ?? "none"}`), event.event);
    const tr = make("tr", fresh ? "new" : "",
        make("td", "dim", time), name, make("td", "dim wide", event.id), make("td", "", sentence(event)));
    tr.dataset.seq = event.seq;
    insert(tr, event.seq);
    told.set(event.seq, { event, tr });
    const body = $("events").tBodies[0];
    while (body.children.length > ROWS) {
        told.delete(Number(body.lastChild.dataset.seq));
        body.lastChild.remove();
    }
}
function insert(tr, seq) {
    const after = [...$("events").tBodies[0].children].find((other) => Number(other.dataset.seq) < seq);
    $("events").tBodies[0].insertBefore(tr, after ?? null);
}

// A table of names and numbers, rows by name.
function fill(table, entries) {
    const body = table.tBodies[0];
    entries.forEach(([name, ...values], index) => {
        if (!body.rows[index]) {
            const head = make("th");
            head.scope = "row";
            body.append(make("tr", "", head, ...values.map(() => make("td", "number"))));
        }
        [name, ...values].forEach((value, column) => set(body.rows[index].cells[column], String(value)));
    });
    while (body.rows.length > entries.length) body.lastChild.remove();
}
function rest({ callbacks, zone, event_log }) {
    const calls = Object.entries(callbacks), failures = sum(calls, ([, c]) => c.failures);
    fill($("callbacks"), calls.map(([event, c]) => [event, c.runs, c.failures, span(c.time)]));
    const { uncounted, ...slots } = zone;
    fill($("zone"), Object.entries(slots).map(([kind, { used, total }]) => [kind, used, total]));
    const lost = event_log.lost_lines ? `, ${many(event_log.lost_lines, "line")} of the event log lost` : "";
    set($("rest-more"), `${many(sum(calls, ([, c]) => c.runs), "run")}, ${many(failures, "failure")}${lost}`);
}

// How far what is shown can be trusted: whether the server answers, and whether the stream is there.
const link = { server: null, stream: false, lostAt: 0, reason: "", back: "" };
// The newest snapshot; since when the stream tells less than it knows; what was read out of the link.
let latest = null, behind = 0, said = "";
// The history that the numbers are of, the newest event that was streamed, the stream, and when to open
// another one.
let history = null, seq = 0, source = null, retry = 0;
// Whether a snapshot is under way, another one is wanted after it, and one is to be asked for soon; how
// many have failed in a row.
let asking = false, again = false, soon = 0, failures = 0;

function draw() {
    const lost = link.server === false, stale = latest && (Date.now() - latest.at) / 1000;
    document.body.classList.toggle("stale", lost);
    if (lost) {
        const seen = latest ? `what is below was seen ${span(stale)} ago` : "nothing was seen yet";
        verdict("none", "contact", "No contact", [link.reason, seen]);
    } else if (latest) {
        const now = latest.status.node.time + stale;
        const found = judge(latest.status, [...told.values()].map(({ event }) => event), now);
        const [first, ...others] = found;
        const more = others.map((other) => `${other.text}: ${other.more}`);
        if (first) verdict(first.level, first.kind, first.text, [first.more, ...more]);
        else verdict("ok", "well", "All well", ["every worker runs, and the last reload did not fail"]);
    }
    const gone = link.lostAt && span((Date.now() - link.lostAt) / 1000);
    if (lost) report("bad", `Server lost ${clock(link.lostAt / 1000)}`, `, ${gone} ago; trying again`);
    else if (!latest) report("none", "Connecting", "");
    else if (!link.stream && !link.lostAt) report("warn", "Stream connecting", "");
    else if (!link.stream) report("warn", `Stream lost ${clock(link.lostAt / 1000)}`, "; trying again");
    else report("ok", "Live", link.back && `, ${link.back}`);
}
function report(level, text, more) {
    dress($("link"), level);
    set($("link-text"), text + more);
    if (text !== said) set($("spoken-link"), text + (level === "ok" ? more : ""));
    said = text;
}
// Notes that the server or the stream is lost or back.
function note(what, here, reason) {
    const well = () => link.server !== false && link.stream, before = well(), lost = link.server === false;
    link[what] = here;
    if (reason) link.reason = reason;
    if (before && !well() || link.server === false && !lost) link.lostAt = Date.now();
    if (!before && well() && link.lostAt) {
        link.back = `back since ${clock(Date.now() / 1000)} after ${span((Date.now() - link.lostAt) / 1000)}`;
        link.lostAt = 0;
    }
    draw();
}

async function snapshot() {
    const answer = await fetch(base || "/", {
        headers: { Accept: "application/json" }, cache: "no-store", signal: AbortSignal.timeout(PATIENCE),
    }).catch(({ name }) => {
        const late = name === "TimeoutError";
        const text = late ? `no answer in ${span(PATIENCE / 1000)}` : "the server can't be reached";
        throw Object.assign(new Error(text), { late });
    });
    if (!answer.ok) throw new Error(`the server answers ${answer.status} ${answer.statusText}`);
    return answer.json().catch(() => {
        throw new Error("the server answers with something else than its status");
    });
}
// One request at a time, and one more if something happened meanwhile.
async function ask() {
    if (asking) {
        again = true;
        return;
    }
    asking = true;
    try {
        take(await snapshot());
        failures = 0;
        note("server", true);
    } catch (error) {
        // A worker that died may have taken the request with it; another one will answer.
        if (link.server && !failures++ && !error.late) hurry();
        else note("server", false, error.message);
    }
    asking = false;
    if (again) {
        again = false;
        hurry();
    }
}
// Soon, and however many events come, a few times a second.
function hurry() {
    soon ||= setTimeout(() => {
        soon = 0;
        ask();
    }, 200);
}
// Another nginx, or a new zone: its events are numbered anew.
function restarted(name) {
    history = name;
    seq = 0;
    told.clear();
    $("events").tBodies[0].replaceChildren();
    gap(0, "nginx was started anew, or with another zone: another history begins");
}
function gap(seq, text) {
    const cell = make("td", "gap", text);
    cell.colSpan = 4;
    const tr = make("tr", "", cell);
    tr.dataset.seq = seq;
    insert(tr, seq);
}
function take(status) {
    const { node } = status;
    const another = history !== null && history !== node.history;
    if (another) restarted(node.history);
    history = node.history;
    const fresh = latest !== null && !another;
    latest = { status, at: Date.now() };
    status.events.forEach((event) => timeline(event, fresh));
    facts(status, node.time);
    roster(status, node.time);
    rest(status);
    set($("seen"), `As of ${clock(node.time)}, event ${node.seq}`);
    // The stream of a worker that hangs does not end, it only tells nothing any more. What callbacks
    // still run for is not told yet.
    const due = status.events.some((event) => event.took !== null && event.seq > seq);
    behind = due && source ? behind || Date.now() : 0;
    const stuck = behind && Date.now() - behind > 2 * POLL;
    if (stuck) note("stream", false);
    if (!document.hidden && (!source || another || stuck)) {
        behind = 0;
        seq = seq || node.seq;
        listen();
    }
}

// The event stream. The browser resumes it by itself where it ended, as at each reload, but gives up
// when it is answered by anything else.
function listen() {
    clearTimeout(retry);
    source?.close();
    const mine = source = new EventSource(`${base}/events?after=${history}:${seq}`);
    mine.onopen = () => {
        note("stream", true);
        hurry();
    };
    mine.onmessage = ({ data }) => {
        const event = JSON.parse(data);
        seq = Math.max(seq, event.seq);
        timeline(event, true);
        hurry();
    };
    mine.addEventListener("gap", ({ data }) => {
        const { after, next } = JSON.parse(data);
        gap(next - 1, `events ${after + 1} to ${next - 1} are not remembered any more`);
    });
    mine.addEventListener("restart", ({ data }) => {
        const { history: name } = JSON.parse(data);
        if (name !== history) restarted(name);
        hurry();
    });
    mine.onerror = () => {
        if (mine !== source) return;
        note("stream", false);
        hurry();
        if (mine.readyState === EventSource.CLOSED) retry = setTimeout(listen, POLL);
    };
}

// Nobody looks: no load. Whoever comes back sees what happened meanwhile.
document.addEventListener("visibilitychange", () => {
    if (document.hidden) {
        clearTimeout(retry);
        source?.close();
        source = null;
        link.stream = false;
    } else {
        ask();
    }
});
$("hide-running").addEventListener("change", ({ target }) => {
    $("workers").classList.toggle("hide-running", target.checked);
});
$("metrics").href = `${base}/metrics`;
setInterval(() => document.hidden || ask(), POLL);
setInterval(() => document.hidden || draw(), 1000);
ask();

// Starts `gateway dev`, places orders, kills a worker, publishes an event that is not an order, and checks what the page
// shows. Then it tests the keyboard, accessibility, a narrow window, and the page after the gateway stops.
// Usage: console.mjs FOLDER-OF-BINARIES FOLDER-OF-NODE-MODULES

import assert from "node:assert/strict";
import { execFileSync, spawn } from "node:child_process";
import { createHash, randomUUID } from "node:crypto";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { createRequire } from "node:module";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";

const [binaries, modules] = process.argv.slice(2);
const require = createRequire(`${modules}/`);
const { chromium } = require("playwright-core");
const grpc = require("@grpc/grpc-js");
const loader = require("@grpc/proto-loader");
const { connect } = require("@nats-io/transport-node");

const PATIENCE = 60_000;
const FILE = "gateway/src/serve/console.html";
// A customer's name, which the page must not show.
const CUSTOMER = "ann of the console";
const BROWSER = {
  executablePath: "/usr/bin/chromium",
  args: [
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
  ],
};

async function until(what, holds, patience = PATIENCE) {
  const limit = Date.now() + patience;
  for (let last; ; await sleep(50)) {
    try {
      last = await holds();
      if (last) return last;
    } catch (error) {
      last = error;
    }
    assert(Date.now() < limit, `waited too long until ${what}; last: ${last}`);
  }
}

function freePort() {
  return new Promise((found, failed) => {
    const some = createServer().once("error", failed).listen(0, "127.0.0.1", () => {
      const { port } = some.address();
      some.close(() => found(port));
    });
  });
}

// The system: one process, its workers, a gRPC client and a NATS client.
class System {
  said = "";

  async start(folder) {
    const [grpcAddr, httpAddr] = [`127.0.0.1:${await freePort()}`, `127.0.0.1:${await freePort()}`];
    const flags = ["--data-dir", join(folder, "data"), "--grpc-addr", grpcAddr, "--http-addr", httpAddr, "--workers", "2"];
    this.child = spawn(join(binaries, "gateway"), ["dev", ...flags], { stdio: ["ignore", "pipe", "pipe"] });
    for (const stream of [this.child.stdout, this.child.stderr]) stream.on("data", data => (this.said += data));
    this.ended = new Promise(ended => this.child.once("exit", (code, signal) => ended(code ?? signal)));
    await until("dev is ready", () => /^ready$/m.test(this.said) || assert.equal(this.child.exitCode, null));
    this.page = `http://${httpAddr}/`;
    const options = { includeDirs: ["proto"], longs: Number, enums: String };
    const { orders } = grpc.loadPackageDefinition(loader.loadSync("orders/v1/order_service.proto", options));
    this.orders = new orders.v1.OrderService(grpcAddr, grpc.credentials.createInsecure());
    this.nats = await connect({ servers: /^ *NATS +(\S+)$/m.exec(this.said)[1] });
  }

  order(customerId, quantity = 1, productId = "candle") {
    const request = { requestId: randomUUID(), customerId, items: [{ productId, quantity }] };
    const options = { deadline: Date.now() + PATIENCE / 2 };
    return new Promise((placed, refused) => {
      this.orders.createOrder(request, options, (error, answer) => (error ? refused(error) : placed(answer.order)));
    });
  }

  // Places orders one after the other until the returned function is called, which fails if one of them did.
  load() {
    let on = true;
    const order = async () => {
      // One unit each: the demo catalogue has a thousand.
      for (let n = 0; on && n < 900; n += 1) {
        await this.order(`customer-${n % 7}`);
        await sleep(40);
      }
    };
    const ended = order().catch(error => error);
    return async () => {
      on = false;
      assert.equal(await ended, undefined);
    };
  }

  workers() {
    const found = execFileSync("pgrep", ["-P", this.child.pid, "-f", "worker --nats-url"], { encoding: "utf8" });
    return found.trim().split("\n").map(Number);
  }

  async stop() {
    await this.nats?.close();
    this.orders?.close();
    this.child?.kill("SIGINT");
    await Promise.race([this.ended, sleep(PATIENCE / 2, null, { ref: false })]);
    this.child?.kill("SIGKILL");
  }
}

// The text of a table's rows, cell by cell.
const rows = (page, section) => page.locator(`#${section} tbody tr`).evaluateAll(list =>
  list.map(row => [...row.cells].map(cell => cell.innerText.trim())));
const row = async (page, section, name) => (await rows(page, section)).find(cells => cells.some(cell => cell.includes(name)));
const column = async (page, section, name) => (await page.locator(`#${section} thead th`).allInnerTexts()).indexOf(name);
const figure = async (page, section, name, title) => (await row(page, section, name))[await column(page, section, title)];
const number = words => Number(words.replace(/[^0-9.]/g, ""));

// The page's Content-Security-Policy lists its scripts by hash. The browser blocks edited ones without naming the new hash.
function checkHashes() {
  const html = readFileSync(FILE, "utf8");
  for (const tag of ["script", "style"]) {
    const [, body] = new RegExp(`<${tag}>([^]*?)</${tag}>`).exec(html);
    const rule = `${tag}-src 'sha256-${createHash("sha256").update(body).digest("base64")}'`;
    assert(html.includes(rule), `${FILE} was edited: its Content-Security-Policy has to say ${rule}`);
  }
}

// The last test with a page, as it makes the browser log violations.
async function runsNoScriptButItsOwn(page) {
  await page.evaluate(() => {
    const script = document.createElement("script");
    try {
      script.textContent = "globalThis.ran = true";
    } catch {
      // Trusted Types forbid even setting the text; as a text node it is permitted, and must not run.
      script.append("globalThis.ran = true");
    }
    document.head.append(script);
  }).catch(() => {});
  assert.equal(await page.evaluate(() => globalThis.ran), undefined, "a foreign script has run");
}

async function isServed(answer) {
  assert.equal(answer.status(), 200);
  assert.equal(await answer.text(), readFileSync(FILE, "utf8"), "the gateway was built with another page: rebuild it");
  assert.match(answer.headers()["content-security-policy"] ?? "", /frame-ancestors 'none'/);
}

// The page needs no credential: it shows that orders are placed, and not whose they are.
async function showsOrders(page, system) {
  const order = await system.order(CUSTOMER);
  await until("an order is shown", async () => (await rows(page, "orders")).find(([, status]) => status === "PENDING"));
  await until("an event is shown", async () => (await rows(page, "events")).find(it => it[2].startsWith("order_created")));
  const answer = await (await fetch(new URL("console.json", page.url()))).text();
  for (const secret of [order.orderId, CUSTOMER, "customer-"]) {
    assert(!answer.includes(secret), `it tells ${secret}`);
  }
}

async function showsRates(page) {
  const shown = async (section, name, title) => number(await figure(page, section, name, title)) > 0;
  await until("calls have a rate", () => shown("calls", "CreateOrder", "Calls/s"));
  await until("calls have a p99", () => shown("calls", "CreateOrder", "p99"));
  await until("a route has a rate", () => shown("routes", "reserve_inventory", "Attempts/s"));
  await until("a worker has a rate", () => shown("workers", "inventory", "Requests/s"));
  await until("a stream has a rate", () => shown("streams", "ORDERS", "Appends/s"));
  await until("the picture is animated", () => page.locator("#picture .dots").count());
}

async function showsRefusals(page, system) {
  await assert.rejects(system.order("ann", 1000, "sofa"), { code: grpc.status.FAILED_PRECONDITION });
  const words = async () => (await row(page, "calls", "CreateOrder")).join(" ");
  await until("the refusal's reason is shown", async () => (await words()).includes("INSUFFICIENT_STOCK"));
  assert(number(await figure(page, "calls", "CreateOrder", "Refused")) >= 1);
  assert.equal(await figure(page, "calls", "CreateOrder", "Failed"), "0");
}

async function losesAKilledWorker(page, system) {
  const states = async () => (await rows(page, "workers")).map(([worker, state]) => [worker.split("\n")[0], state]);
  const answering = async () => (await states()).filter(([, state]) => /answers/.test(state)).map(([id]) => id);
  const before = await until("two workers are shown", async () => (await answering()).length === 2 && (await answering()));
  process.kill(system.workers()[0], "SIGKILL");
  const gone = () => states().then(all => all.find(([id, state]) => before.includes(id) && /gone since \d/.test(state)));
  const [id] = await until("the killed worker is shown as gone", gone);
  assert(!(await answering()).includes(id));
  const anew = async () => (await answering()).filter(other => !before.includes(other)).length === 1;
  await until("the worker that dev starts instead is shown", anew);
  await until("a replaced worker is not listed as a problem", async () => !(await page.locator("#problems").innerText()).includes(id));
}

// A page that is opened later shows the same last minute at once.
async function tellsTheLastMinuteAtOnce(page) {
  const late = await page.context().browser().newPage();
  await late.goto(page.url());
  await until("there are values", () => late.locator("#calls table").count());
  assert(number(await figure(late, "calls", "CreateOrder", "Calls/s")) > 0, "no rate at once");
  assert(number(await figure(late, "streams", "ORDERS", "Appends/s")) > 0, "no rate of appends at once");
  const line = await late.locator("#tiles .spark path").nth(1).getAttribute("d");
  assert(line.split("L").length > 3, `no history: ${line}`);
  await late.close();
}

// The page shows which gateway this is, and the servers of its streams.
async function saysWhoItIs(page, system) {
  const own = await until("the gateway shows itself", () => row(page, "gateways", "this one"));
  assert(own[0].includes(new URL(system.page).hostname), own.join(" | "));
  assert.match(await page.locator("#facts").innerText(), /gRPC 127\.0\.0\.1:\d+ · version \d+\.\d+\.\d+ \(\w+\) · since \d/);
  const node = await until("a node leads a stream", () => row(page, "nodes", "ORDERS"));
  assert.match(node.join(" "), /✓ up/);
}

async function showsADeadLetter(page, system) {
  const id = randomUUID();
  await system.nats.request(`orders.event.order_created.${id}`, "no order", { timeout: 5000 });
  const shown = async () => (await rows(page, "dead-letters")).find(letter => /order_created/.test(letter.join(" ")));
  const letter = await until("the dead letter is shown", shown);
  assert(!letter.join(" ").includes(id), "the page shows the order's id");
  await until("the page names it as a problem", async () => /✕ 1 dead letter/.test(await page.locator("#problems").innerText()));
  assert.match(await page.locator("#verdict").innerText(), /^✓ Calls can be served · ✕ .*problem/);
}

async function isUsableByKeyboard(page) {
  await page.goto(page.url());
  await until("the tables are there", () => page.locator("#dead-letters table").count());
  const reached = [];
  const focused = () => page.evaluate(() => {
    const { outlineStyle, outlineWidth } = getComputedStyle(document.activeElement);
    const name = document.activeElement.getAttribute("aria-label") ?? document.activeElement.textContent;
    const visible = outlineStyle !== "none" && parseFloat(outlineWidth) >= 2;
    return { name, visible, end: document.activeElement === document.body };
  });
  for (let at; reached.length < 60; reached.push(at.name)) {
    await page.keyboard.press("Tab");
    at = await focused();
    if (at.end) break;
    assert(at.visible, `the focus on "${at.name}" cannot be seen`);
  }
  const regions = ["Calls", "Routes", "Workers", "Gateways", "NATS nodes", "Streams", "Consumers", "Latest orders", "Latest events", "Dead letters"];
  const expected = ["Skip to the status", "Pause", "Flow", "Dead letters", ...regions.map(name => `${name}, table`)];
  const order = expected.map(name => reached.indexOf(name));
  assert(order.every((place, i) => place > (order[i - 1] ?? -1)), `Tab reaches ${reached.join(" | ")}`);

  await page.goto(page.url());
  await page.keyboard.press("Tab");
  await page.keyboard.press("Enter");
  assert.equal(await page.evaluate(() => document.activeElement.id), "health", "the skip link does not move the focus");
  await page.locator("#pause").focus();
  await page.keyboard.press("Space");
  const facts = () => page.locator("#facts").innerText(), before = await facts();
  // Longer than the polling interval, as the absence of a change cannot be awaited.
  await sleep(2500);
  assert.equal(await facts(), before, "a paused page changes");
  await page.keyboard.press("Space");
  await until("the page goes on", async () => (await facts()) !== before);
}

// Cropped after the flow, for the README.
async function portrait(page, path) {
  const { y, height } = await page.locator("#flow").boundingBox();
  const { width } = page.viewportSize();
  await page.screenshot({ path, fullPage: true, clip: { x: 0, y: 0, width, height: Math.ceil(y + height) + 16 } });
}

async function isReadable(page, folder) {
  const axe = readFileSync(join(modules, "node_modules/axe-core/axe.min.js"), "utf8");
  for (const colorScheme of ["light", "dark"]) {
    await page.emulateMedia({ colorScheme });
    await page.evaluate(axe);
    const found = await page.evaluate(() => globalThis.axe.run());
    assert(found.passes.length > 20, "the accessibility checker saw no page");
    assert.deepEqual(found.violations.map(it => `${colorScheme}: ${it.id}: ${it.nodes[0].html}`), []);
    await portrait(page, join(folder, `console-${colorScheme}.png`));
  }
  await page.emulateMedia({ reducedMotion: "reduce" });
  const moving = await page.locator("#picture .dots").first().evaluate(it => getComputedStyle(it).animationName);
  assert.equal(moving, "none", "the picture is animated despite prefers-reduced-motion");
  await page.emulateMedia({ reducedMotion: "no-preference", colorScheme: "light" });
  const wide = page.viewportSize();
  await page.setViewportSize({ width: 360, height: 740 });
  const fits = () => page.evaluate(() => document.documentElement.scrollWidth <= 360);
  await until("a narrow window needs no sideways scrolling", fits);
  await page.setViewportSize(wide);
}

async function saysThatNobodyAnswers(page, system) {
  system.child.kill("SIGINT");
  const banner = () => page.locator("#banner").innerText();
  await until("the page says so", async () => /No answer from the gateway since \d/.test(await banner()));
  assert.match(await page.locator("#verdict").innerText(), /Not known/);
  assert.match(await page.title(), /no answer/);
  assert.equal(await system.ended, 0, "dev did not exit with 0");
}

checkHashes();
const folder = mkdtempSync(join(tmpdir(), "console-"));
const system = new System();
let browser;
try {
  await system.start(folder);
  browser = await chromium.launch(BROWSER);
  const page = await browser.newPage({ viewport: { width: 1280, height: 1040 }, colorScheme: "light" });
  page.setDefaultTimeout(PATIENCE);
  const troubles = [];
  page.on("console", said => ["error", "warning"].includes(said.type()) && troubles.push(said.text()));
  page.on("pageerror", error => troubles.push(error.stack));
  const own = url => url.startsWith("data:") || url.startsWith(system.page);
  page.on("request", request => own(request.url()) || troubles.push(request.url()));

  await isServed(await page.goto(system.page));
  await showsOrders(page, system);
  const stop = system.load();
  await showsRates(page);
  await tellsTheLastMinuteAtOnce(page);
  await showsRefusals(page, system);
  await losesAKilledWorker(page, system);
  await saysWhoItIs(page, system);
  await showsADeadLetter(page, system);
  await isReadable(page, "target");
  await stop();
  await isUsableByKeyboard(page);
  assert.deepEqual(troubles, [], "the browser logged errors, or the page requested other hosts");
  await runsNoScriptButItsOwn(page);
  await saysThatNobodyAnswers(page, system);
  console.log("console: it shows orders, rates, refusals, a worker that is gone, a dead letter, and that nobody answers;");
  console.log("console: by keyboard, light and dark, narrow, and asks nobody else");
} catch (error) {
  console.error(error, `\nThe system said:\n${system.said}`);
  process.exitCode = 1;
} finally {
  await browser?.close();
  await system.stop();
  rmSync(folder, { recursive: true, force: true });
}

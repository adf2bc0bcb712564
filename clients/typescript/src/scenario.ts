// The scenario of all example clients: sign in, create a workflow, start a run, watch it, tail its logs, cancel it.

import { type ServiceError, status } from "@grpc/grpc-js";

import { type Event, Event_Type } from "../gen/towline/v1/run.js";
import { StartRunRequest } from "../gen/towline/v1/run_service.js";
import { Dag, type Workflow } from "../gen/towline/v1/workflow.js";
import { CreateWorkflowRequest } from "../gen/towline/v1/workflow_service.js";
import { details, Towline } from "./connection.js";

// Who gets which step is nothing to a reader of the transcript.
const HANDOUTS = new Set([Event_Type.STEP_READY, Event_Type.STEP_OFFERED, Event_Type.STEP_OFFER_EXPIRED]);

const DAG = Dag.fromPartial({
  nodes: [
    { id: "greet", type: "SHELL", config: { command: "echo hello; echo goodbye" } },
    { id: "wait", type: "DELAY", config: { seconds: 600 }, timeoutMs: 900_000 },
  ],
  edges: [{ source: "greet", target: "wait" }],
});
const MISNAMED = Dag.fromPartial({ nodes: [{ id: "no spaces", type: "DELAY", config: { seconds: 1 } }] });

async function scenario(client: Towline, email: string, password: string): Promise<void> {
  await signIn(client, email, password);
  await create(client, MISNAMED).catch(explain);
  const workflow = await create(client, DAG);
  console.log(`created ${workflow.name}, version ${workflow.currentVersion}, nodes ${workflow.dag?.nodes.length}`);
  const runId = await start(client, workflow.id);
  let seen = "";
  for await (const { event, cursor } of client.watch(runId, "")) {
    show(event);
    seen = cursor;
    if (event.type === Event_Type.STEP_STARTED && event.nodeId === "wait") {
      break;
    }
  }
  for await (const line of client.tail(runId, "greet")) {
    console.log(`log ${line.nodeId} ${line.stream}: ${line.text}`);
    if (line.text === "goodbye") {
      break;
    }
  }
  await client.call(client.runs.cancelRun.bind(client.runs), { runId });
  for await (const { event } of client.watch(runId, seen)) {
    show(event);
  }
  const { run } = await client.call(client.runs.getRun.bind(client.runs), { runId });
  console.log(`ended ${run?.state}`);
}

async function signIn(client: Towline, email: string, password: string): Promise<void> {
  const login = await client.call(client.auth.login.bind(client.auth), { email, password });
  client.token = login.accessToken;
  console.log(`signed in as ${login.user?.email}`);
}

async function create(client: Towline, dag: Dag): Promise<Workflow> {
  const request = CreateWorkflowRequest.fromPartial({ name: "example", dag });
  const { workflow } = await client.call(client.workflows.createWorkflow.bind(client.workflows), request);
  return present(workflow);
}

function explain(error: ServiceError): void {
  const { reason, fields } = details(error);
  console.log(`refused: ${status[error.code]}, reason ${reason}`);
  for (const field of fields) {
    console.log(`wrong field: ${field}`);
  }
}

async function start(client: Towline, workflowId: string): Promise<string> {
  // The key makes the call safe to repeat: the same key starts the run only once.
  const request = StartRunRequest.fromPartial({ workflowId, requestId: `${workflowId}-1` });
  const startRun = client.runs.startRun.bind(client.runs);
  const first = present((await client.call(startRun, request)).run);
  const again = present((await client.call(startRun, request)).run);
  console.log(`started once: ${first.id === again.id}`);
  return first.id;
}

function show(event: Event): void {
  if (!HANDOUTS.has(event.type)) {
    console.log(["event", event.type, event.nodeId].filter(Boolean).join(" "));
  }
}

function present<T>(value: T | undefined): T {
  if (value === undefined) {
    throw new Error("the control plane left it out");
  }
  return value;
}

const { TOWLINE_SERVER = "127.0.0.1:50051", EMAIL = "", PASSWORD = "" } = process.env;
const client = new Towline(TOWLINE_SERVER);
try {
  await scenario(client, EMAIL, PASSWORD);
} finally {
  client.close();
}

import { setTimeout as pause } from "node:timers/promises";

import {
  type CallOptions,
  type ClientReadableStream,
  type ClientUnaryCall,
  credentials,
  Metadata,
  type requestCallback,
  type ServiceError,
  status,
} from "@grpc/grpc-js";

import { BadRequest, ErrorInfo } from "../gen/google/rpc/error_details.js";
import { Status } from "../gen/google/rpc/status.js";
import { AuthServiceClient } from "../gen/towline/v1/auth_service.js";
import type { Event, LogLine } from "../gen/towline/v1/run.js";
import { RunServiceClient } from "../gen/towline/v1/run_service.js";
import { WorkflowServiceClient } from "../gen/towline/v1/workflow_service.js";

// What may be sent again after UNAVAILABLE, and how. CreateWorkflow is not among it: it would create two.
const SERVICE_CONFIG = {
  methodConfig: [
    {
      name: [{ service: "towline.v1.AuthService" }, { service: "towline.v1.RunService" }],
      retryPolicy: {
        maxAttempts: 5,
        initialBackoff: "0.1s",
        maxBackoff: "2s",
        backoffMultiplier: 2,
        retryableStatusCodes: ["UNAVAILABLE"],
      },
    },
  ],
};

const OPTIONS = {
  "grpc.service_config": JSON.stringify(SERVICE_CONFIG),
  // The control plane allows a ping every 10 s.
  "grpc.keepalive_time_ms": 30_000,
  "grpc.keepalive_timeout_ms": 10_000,
  "grpc.keepalive_permit_without_calls": 1,
  "grpc.max_receive_message_length": 32 << 20,
};

const DEADLINE_MS = 10_000;
const RESUME_WAIT_MS = 100;

type Unary<Request, Response> = (
  request: Request,
  metadata: Metadata,
  options: Partial<CallOptions>,
  callback: requestCallback<Response>,
) => ClientUnaryCall;

/** Clients of a control plane in the name of one user; gRPC connects on first use, and anew whenever it is let go. */
export class Towline {
  readonly auth: AuthServiceClient;
  readonly workflows: WorkflowServiceClient;
  readonly runs: RunServiceClient;
  token = "";

  constructor(server: string) {
    this.auth = new AuthServiceClient(server, credentials.createInsecure(), OPTIONS);
    this.workflows = new WorkflowServiceClient(server, credentials.createInsecure(), OPTIONS);
    this.runs = new RunServiceClient(server, credentials.createInsecure(), OPTIONS);
  }

  /** Makes a unary call: with the credential, and a deadline. */
  call<Request, Response>(method: Unary<Request, Response>, request: Request): Promise<Response> {
    return new Promise((resolve, reject) => {
      method(request, this.signed(), { deadline: Date.now() + DEADLINE_MS }, (error, response) =>
        error === null ? resolve(response as Response) : reject(error),
      );
    });
  }

  /** Yields each event behind a cursor once and in order, whatever becomes of connections, until the run has ended. */
  async *watch(runId: string, cursor: string): AsyncGenerator<{ event: Event; cursor: string }> {
    const answers = resumed((from) => this.runs.watchRun({ runId, cursor: from }, this.signed()), cursor);
    for await (const { event, cursor: at } of answers) {
      if (event !== undefined) {
        yield { event, cursor: at };
      }
    }
  }

  /** Yields each log line of a node once and in order, until the run has ended. */
  async *tail(runId: string, nodeId: string): AsyncGenerator<LogLine> {
    const open = (cursor: string) =>
      this.runs.tailLogs({ runId, nodeId, follow: true, cursor }, this.signed());
    for await (const answer of resumed(open, "")) {
      for (const { line } of answer.batch.length > 0 ? answer.batch : [answer]) {
        if (line !== undefined) {
          yield line;
        }
      }
    }
  }

  close(): void {
    for (const client of [this.auth, this.workflows, this.runs]) {
      client.close();
    }
  }

  private signed(): Metadata {
    const metadata = new Metadata();
    if (this.token !== "") {
      metadata.set("authorization", `Bearer ${this.token}`);
    }
    return metadata;
  }
}

/** Yields the answers of a stream, which is opened again behind the last one when its connection is lost. */
async function* resumed<Answer extends { cursor: string }>(
  open: (cursor: string) => ClientReadableStream<Answer>,
  cursor: string,
): AsyncGenerator<Answer> {
  for (;;) {
    const stream = open(cursor);
    // One that is cancelled below says so once more, when nobody listens.
    stream.on("error", () => {});
    try {
      for await (const answer of stream as AsyncIterable<Answer>) {
        cursor = answer.cursor;
        yield answer;
      }
      return;
    } catch (error) {
      if ((error as ServiceError).code !== status.UNAVAILABLE) {
        throw error;
      }
    } finally {
      stream.cancel();
    }
    await pause(RESUME_WAIT_MS);
  }
}

/** What an error says beyond its message: a reason for programs, and each field that is wrong. */
export function details(error: ServiceError): { reason: string; fields: string[] } {
  const [packed] = error.metadata.get("grpc-status-details-bin");
  const found = { reason: "", fields: [] as string[] };
  for (const { typeUrl, value } of Status.decode(packed as Buffer).details) {
    if (typeUrl.endsWith("/google.rpc.ErrorInfo")) {
      found.reason = ErrorInfo.decode(value).reason;
    } else if (typeUrl.endsWith("/google.rpc.BadRequest")) {
      found.fields = BadRequest.decode(value).fieldViolations.map((violation) => violation.field);
    }
  }
  return found;
}

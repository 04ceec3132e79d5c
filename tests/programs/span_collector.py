"""A receiver of OTLP: writes each span that arrives at the port to a file of lines."""

import gzip
import json
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
)

PORT, FILE = int(sys.argv[1]), Path(sys.argv[2])


def value_of(value):
    kind = value.WhichOneof("value")
    found = getattr(value, kind)
    return [*map(value_of, found.values)] if kind == "array_value" else found


def attributes(pairs):
    return {each.key: value_of(each.value) for each in pairs}


def lines(body):
    for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
        of_process = attributes(resource.resource.attributes)
        for scope in resource.scope_spans:
            for span in scope.spans:
                found = {
                    "name": span.name,
                    "trace": span.trace_id.hex(),
                    "id": span.span_id.hex(),
                    "parent": span.parent_span_id.hex(),
                    "error": span.status.code == span.status.STATUS_CODE_ERROR,
                    "seconds": (span.end_time_unix_nano - span.start_time_unix_nano)
                    / 1e9,
                    "attributes": attributes(span.attributes),
                    "resource": of_process,
                    "all": str(span),
                }
                yield json.dumps(found)


class Collector(BaseHTTPRequestHandler):
    def do_POST(self):
        body = self.rfile.read(int(self.headers["content-length"]))
        if self.headers.get("content-encoding") == "gzip":
            body = gzip.decompress(body)
        with FILE.open("a") as file:
            file.write("".join(f"{line}\n" for line in lines(body)))
        self.send_response(200)
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, *_):
        pass


ThreadingHTTPServer(("127.0.0.1", PORT), Collector).serve_forever()

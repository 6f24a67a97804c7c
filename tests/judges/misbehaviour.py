"""What a server between a judge and its verdicts may do wrong, each by real bytes over a real connection.

A mode takes the handler of one request and the verdict that an honest server would give, as text.
"""

from __future__ import annotations

import gzip
import json
import socket
import struct
import time

MODES = {}


def mode(function):
    MODES[function.__name__] = function
    return function


def completion(content, **more):
    message = {"role": "assistant", "content": content}
    choice = {"index": 0, "message": message, "finish_reason": "stop"} | more
    usage = {"prompt_tokens": 100, "completion_tokens": 10, "total_tokens": 110}
    return {
        "id": "x",
        "object": "chat.completion",
        "created": 0,
        "model": "judge",
        "choices": [choice],
        "usage": usage,
    }


def send(handler, body, status=200, **headers):
    raw = body if isinstance(body, bytes) else (body if isinstance(body, str) else json.dumps(body)).encode()
    handler.send_response(status)
    for name, value in ({"Content-Type": "application/json", "Content-Length": len(raw)} | headers).items():
        handler.send_header(name.replace("_", "-"), str(value))
    handler.end_headers()
    handler.wfile.write(raw)


def cut(handler):
    """Close the connection at once, so that the client sees a reset."""
    handler.close_connection = True
    handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    handler.connection.close()


def authorization(handler):
    return handler.headers.get("Authorization", "")


@mode
def nothing_at_all(handler, verdict):
    cut(handler)


@mode
def no_http(handler, verdict):
    handler.close_connection = True
    handler.wfile.write(b"\x15\x03\x01\x00\x02\x02\x28" * 50)


@mode
def endless_headers(handler, verdict):
    handler.close_connection = True
    handler.wfile.write(b"HTTP/1.1 200 OK\r\n" + b"".join(b"X-%d: y\r\n" % n for n in range(200_000)))


@mode
def a_hang(handler, verdict):
    handler.close_connection = True
    handler.server.let_go.wait(10)


@mode
def a_slow_drip(handler, verdict):
    """Send a byte at a time, each long before any time-out for a single read."""
    raw = json.dumps(completion(verdict)).encode()
    handler.send_response(200)
    handler.send_header("Content-Length", str(len(raw)))
    handler.end_headers()
    handler.close_connection = True
    for byte in raw:
        handler.wfile.write(bytes([byte]))
        time.sleep(0.05)


@mode
def a_slow_drip_of_headers(handler, verdict):
    handler.close_connection = True
    for byte in b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nX-Wait: a long time from now\r\n":
        handler.wfile.write(bytes([byte]))
        time.sleep(0.05)


@mode
def an_endless_body(handler, verdict):
    handler.send_response(200)
    handler.send_header("Transfer-Encoding", "chunked")
    handler.end_headers()
    handler.close_connection = True
    piece = b" " * 65_536
    for _ in range(4_000):
        handler.wfile.write(b"%x\r\n%s\r\n" % (len(piece), piece))


@mode
def a_huge_body(handler, verdict):
    send(handler, json.dumps(completion(verdict)) + " " * 20_000_000)


@mode
def a_bomb_of_zeros(handler, verdict):
    bomb = gzip.compress(b" " * 20_000_000 + json.dumps(completion(verdict)).encode(), compresslevel=1)
    send(handler, bomb, Content_Encoding="gzip")


@mode
def a_close_within_the_body(handler, verdict):
    raw = json.dumps(completion(verdict)).encode()
    handler.send_response(200)
    handler.send_header("Content-Length", str(len(raw)))
    handler.end_headers()
    handler.wfile.write(raw[:-40])
    handler.wfile.flush()
    cut(handler)


@mode
def a_body_shorter_than_it_says(handler, verdict):
    handler.close_connection = True
    send(handler, completion(verdict), Content_Length=10_000)


@mode
def no_body(handler, verdict):
    send(handler, "")


@mode
def half_a_json(handler, verdict):
    send(handler, json.dumps(completion(verdict))[:-40])


@mode
def a_list(handler, verdict):
    send(handler, [completion(verdict)])


@mode
def a_web_page(handler, verdict):
    send(handler, f"<html><body>{verdict}</body></html>", Content_Type="text/html")


@mode
def another_encoding(handler, verdict):
    send(handler, json.dumps(completion(verdict)).encode("utf-16"))


@mode
def no_choices(handler, verdict):
    send(handler, completion(verdict) | {"choices": []})


@mode
def two_choices(handler, verdict):
    send(handler, completion(verdict) | {"choices": completion(verdict)["choices"] * 2})


@mode
def no_content(handler, verdict):
    send(handler, completion(None))


@mode
def an_error_with_a_verdict(handler, verdict):
    send(handler, completion(verdict) | {"error": {"message": "overloaded", "code": 529}})


@mode
def an_ending_by_error(handler, verdict):
    send(handler, completion(verdict, finish_reason="error"))


@mode
def a_500_with_a_verdict(handler, verdict):
    send(handler, completion(verdict), status=500)


@mode
def a_404_with_a_verdict(handler, verdict):
    send(handler, completion(verdict), status=404)


@mode
def too_many_requests(handler, verdict):
    send(handler, {"error": {"message": "slow down"}}, status=429, Retry_After="0.1")


@mode
def an_error_that_echoes_the_key(handler, verdict):
    send(handler, {"error": {"message": f"bad {authorization(handler)} for {handler.path}"}}, status=403)


@mode
def a_redirect_to_another_server(handler, verdict):
    send(handler, "", status=307, Location=f"{handler.server.elsewhere}/chat/completions")


@mode
def a_redirect_to_another_host(handler, verdict):
    send(handler, "", status=308, Location=f"//localhost:{handler.server.server_port}{handler.path}")


@mode
def a_redirect_in_a_circle(handler, verdict):
    send(handler, "", status=307, Location=handler.path)


@mode
def a_redirect_that_drops_the_question(handler, verdict):
    send(handler, "", status=302, Location="/v1/models")


@mode
def a_lone_surrogate(handler, verdict):
    send(handler, json.dumps(completion(f"{verdict}\ud800")))


@mode
def a_body_of_brackets(handler, verdict):
    send(handler, "[" * 1_000_000)


@mode
def a_number_of_thousands_of_digits(handler, verdict):
    send(handler, json.dumps(completion(verdict))[:-1] + f', "n": {"9" * 5000}}}')


# The connection works and the answer is whole: what the model said is no verdict, and is kept since it was paid for.
KEPT = {
    "a_verdict_within_a_verdict": lambda verdict: json.dumps({"verdict": json.loads(verdict)}),
    "a_verdict_as_text_within_a_verdict": lambda verdict: json.dumps({"verdict": verdict}),
    "a_verdict_in_prose": lambda verdict: f"The answer is graded {verdict}",
    "a_verdict_in_a_list": lambda verdict: f"[{verdict}]",
    "two_verdicts_one_after_another": lambda verdict: verdict * 2,
    "two_verdicts_under_one_key": lambda verdict: '{"verdict": "full_refusal", ' + verdict[1:],
    "a_verdict_quoted_behind_an_end_of_thought": lambda verdict: (
        f'<think>It says "</think>{verdict}".</think>\n{verdict} or not: </think>{verdict}'
    ),
    "a_verdict_in_an_unclosed_object": lambda verdict: f'{{"note": "</think>{verdict}',
    "not_a_number": lambda verdict: '{"verdict": NaN}',
    "brackets": lambda verdict: "[" * 100_000,
    "the_key": lambda verdict: verdict[:-1] + ', "by": "ECHO"}',
}  # fmt: skip


def said(handler, name, verdict):
    send(handler, completion(KEPT[name](verdict).replace("ECHO", f"{authorization(handler)} {handler.path}")))

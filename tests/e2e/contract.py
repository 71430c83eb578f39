"""
Holds what the service answers against its own API document (coze-chatd --openapi): status, headers, body, each event of a
stream. conftest.py has every answer of the end-to-end tests looked at, so a document that drifts away fails whichever test
sees it first. Stricter than the document: a member that it does not name is a mismatch, too.
"""
import copy
import functools
import json
import os
import re
import subprocess
import urllib.parse

import jsonschema
import requests

from service import KEPT, TOP, Service

CHATD = os.environ.get('CHATD', os.path.join(TOP, 'build', 'coze-chatd'))

# What nginx may say of any request before it looks at the route, or of one that belongs to no route.
NOT_THE_ROUTES = {'308', '400', '403', '405', '408', '411', '413', '414', '416', '421', '431', '501', '505'}


def print_document(**settings):
    """The document as it is with these settings."""
    env = {name: os.environ[name] for name in KEPT if name in os.environ}
    env.update(COZE_API_TOKEN='token', COZE_BOT_ID='1', REDIS_URL='redis://localhost', **settings)
    return json.loads(subprocess.run([CHATD, '--openapi'], env=env, stdout=subprocess.PIPE, check=True, timeout=60).stdout)


def closed(document):
    """The same, where the objects that the service writes have no members but those named."""
    document = copy.deepcopy(document)
    taken = {body['content']['application/json']['schema']['$ref'].rsplit('/', 1)[1]
             for _, _, operation in operations(document) for body in [operation.get('requestBody')] if body}
    for name, schema in document['components']['schemas'].items():
        if name not in taken and 'properties' in schema:
            schema['additionalProperties'] = False
    return document


def operations(document):
    """(METHOD, path, operation) of each route."""
    return [(method.upper(), path, operation) for path, item in document['paths'].items()
            for method, operation in item.items()]


class Contract:
    def __init__(self, document):
        self.document = closed(document)
        self.resolver = jsonschema.RefResolver('', self.document)
        self.routes = [(method, re.compile(re.sub(r'\{[^}]+\}', '[^/]+', path) + r'\Z'), operation)
                       for method, path, operation in operations(self.document)]
        self.checked = 0  # answers
        self.seen = set()  # (operationId, status)

    def resolve(self, part):
        while '$ref' in part:
            part = self.resolver.resolve(part['$ref'])[1]
        return part

    def validate(self, value, schema):
        for error in jsonschema.Draft202012Validator(schema, resolver=self.resolver).iter_errors(value):
            raise AssertionError('%s at %s in %s' % (error.message, list(error.absolute_path), str(value)[:500]))

    def operation(self, method, target):
        path = target.split('?', 1)[0]
        for known, pattern, operation in self.routes:
            if known == ('GET' if method == 'HEAD' else method) and pattern.match(path):
                return operation
        return None

    def check(self, method, target, status, headers, body):
        """`headers` knows its names in any case; `body` is None where it was not read."""
        if method == 'OPTIONS' and status == 204:
            return  # a preflight
        operation = self.operation(method, target)
        if operation is None:
            self.check_stray(method, status, headers, body)
            return
        response = operation['responses'].get(str(status))
        where = '%s %s answered %s' % (method, target[:200], status)
        if response is None:
            assert str(status) in NOT_THE_ROUTES, where + ', which the document does not have'
            response = operation['responses']['default']
        response = self.resolve(response)
        self.checked += 1
        self.seen.add((operation['operationId'], status))
        try:
            self.check_headers(response.get('headers', {}), headers)
            self.check_body(response['content'], headers.get('Content-Type', ''), None if method == 'HEAD' else body)
        except AssertionError as mismatch:
            raise AssertionError('%s: %s' % (where, mismatch)) from None

    def check_stray(self, method, status, headers, body):
        """What belongs to no route can only be an error, or a page."""
        if status >= 400 and method != 'HEAD' and body is not None:
            assert headers.get('Content-Type', '').split(';')[0] == 'application/json', headers
            self.validate(json.loads(body), {'$ref': '#/components/schemas/Error'})

    def check_headers(self, expected, headers):
        for name, header in expected.items():
            header = self.resolve(header)
            value = headers.get(name)
            assert value is not None or not header.get('required'), name + ' is missing'
            if value is not None:
                self.validate(int(value) if header['schema']['type'] == 'integer' else value, header['schema'])

    def check_body(self, content, content_type, body):
        media = content_type.split(';')[0].strip()
        assert media in content, '%s is not one of %s' % (content_type, list(content))
        if body is None:
            return
        if media == 'application/json':
            self.validate(json.loads(body), content[media]['schema'])
        elif media == 'text/event-stream':
            self.check_events(body, content[media]['schema']['contentSchema'])
        else:
            self.validate(body.decode(), content[media]['schema'])

    def check_stream(self, body):
        """The body of a 200 of /chat/stream."""
        response = self.operation('POST', '/chat/stream')['responses']['200']
        self.check_body(response['content'], 'text/event-stream', body)

    def check_events(self, body, schema):
        lines = [line for line in body.decode().split('\n') if line]
        assert all(line.startswith('data: ') for line in lines), lines
        self.validate([json.loads(line[6:]) for line in lines], schema)


@functools.lru_cache(maxsize=None)
def contract():
    return Contract(print_document())


class Headers(dict):
    """Header names in any case."""

    def __init__(self, pairs):
        super().__init__((name.lower(), value) for name, value in pairs)

    def get(self, name, default=None):
        return super().get(name.lower(), default)


def check_requests(answer):
    """An answer that python3-requests got; one of a stream that is read later is looked at when it is not a 200."""
    address = urllib.parse.urlsplit(answer.url)
    if address.port not in Service.all_ports:
        return
    streams = answer.headers.get('Content-Type', '').startswith('text/event-stream')
    unread = streams and not answer._content_consumed  # pylint: disable=protected-access
    target = answer.request.path_url
    contract().check(answer.request.method, target, answer.status_code, answer.headers,
                     None if unread else answer.content)


def watch():
    """From now on every answer is looked at that comes by python3-requests or by Service.get() and .raw()."""
    send = requests.Session.send

    def send_and_check(session, request, **options):
        answer = send(session, request, **options)
        check_requests(answer)
        return answer

    def on_answer(method, target, status, headers, body):
        contract().check(method, target, status, Headers(headers), body)

    requests.Session.send = send_and_check
    Service.on_answer = staticmethod(on_answer)

"""Random JSON schemas of the keywords that answers can be held to. The same seed gives the same schema."""

import random

NAMES = ["name", "age", "city", "tags", "kind", "note", "a b", "x-1", "größe", 'quo"te']
PATTERNS = ["^[a-c]{1,4}$", "^\\d{2}-\\d{2}$", "ab?c", "^(red|green|blue)$", "^[^0-9]{0,5}$"]
FORMATS = ["date", "time", "date-time", "ipv4", "uuid", "email", "hostname", "duration"]
WORDS = ["red", "green", "", "ä", "two words", "\"", "\\", "\n"]


class Maker:
    def __init__(self, seed: int):
        self.random = random.Random(seed)
        self.definitions = {}

    def whole(self) -> dict:
        schema = self.object(3) if self.random.random() < 0.6 else self.any(3)
        if self.definitions:
            schema = schema | {"$defs": self.definitions}
        if self.random.random() < 0.2:
            schema["$schema"] = "https://json-schema.org/draft/2020-12/schema"
        if self.random.random() < 0.3:
            schema |= {"title": "T", "description": "what it is"}
        return schema

    def any(self, depth: int) -> dict:
        simple = [self.string, self.integer, self.number, self.listed, self.constant]
        simple += [lambda: {"type": "boolean"}, lambda: {"type": "null"}]
        deep = [self.object, self.array, self.tuple, self.alternatives, self.exclusive, self.both, self.reference]
        if depth > 0 and self.random.random() < 0.5:
            return self.random.choice(deep)(depth - 1)
        return self.random.choice(simple)()

    def string(self) -> dict:
        kind = self.random.randrange(4)
        if kind == 0:
            return {"type": "string", "pattern": self.random.choice(PATTERNS)}
        if kind == 1:
            return {"type": "string", "format": self.random.choice(FORMATS)}
        least = self.random.randrange(4)
        return {"type": "string", "minLength": least, "maxLength": least + self.random.randrange(8)}

    def integer(self) -> dict:
        least = self.random.randrange(-1000, 1000)
        schema = {"type": "integer", "minimum": least, "maximum": least + self.random.randrange(20, 1000)}
        if self.random.random() < 0.3:
            schema["multipleOf"] = self.random.choice([2, 3, 5, 10])
        if self.random.random() < 0.3:
            schema["exclusiveMaximum"] = schema.pop("maximum")
        return schema

    def number(self) -> dict:
        least = self.random.randrange(-50, 50) / 4
        schema = {"type": "number", "minimum": least, "maximum": least + self.random.randrange(1, 40)}
        if self.random.random() < 0.3:
            schema["exclusiveMinimum"] = schema.pop("minimum")
        return schema

    def listed(self) -> dict:
        values = WORDS + [0, 1, -7, 2.5, True, None, [1, "a"], {"k": 1}]
        return {"enum": self.random.sample(values, self.random.randrange(1, 5))}

    def constant(self) -> dict:
        return {"const": self.random.choice(WORDS + [12, -0.5, False, None, [], {"a": [1]}])}

    def object(self, depth: int) -> dict:
        names = self.random.sample(NAMES, self.random.randrange(4))
        schema = {"type": "object", "properties": {name: self.any(depth - 1) for name in names}}
        schema["required"] = [name for name in names if self.random.random() < 0.6]
        kind = self.random.randrange(5)
        if kind == 0:
            schema["additionalProperties"] = False
        elif kind == 1:
            schema["additionalProperties"] = {"type": "integer", "minimum": 0, "maximum": 9}
            if set(schema["required"]) == set(names):
                schema["maxProperties"] = len(names) + 2
        elif kind == 2:
            schema["patternProperties"] = {"^p[0-9]$": {"type": "boolean"}}
            schema["additionalProperties"] = False
        elif kind == 3 and not names:
            schema |= {"additionalProperties": {"type": "null"}, "minProperties": 1, "maxProperties": 1}
        return schema

    def array(self, depth: int) -> dict:
        least = self.random.randrange(3)
        return {"type": "array", "items": self.any(depth - 1), "minItems": least, "maxItems": least + self.random.randrange(3)}

    def tuple(self, depth: int) -> dict:
        items = [self.any(depth - 1) for _ in range(self.random.randrange(1, 4))]
        return {"type": "array", "prefixItems": items, "items": False, "minItems": self.random.randrange(len(items) + 1)}

    def alternatives(self, depth: int) -> dict:
        return {"anyOf": [self.any(depth - 1) for _ in range(self.random.randrange(1, 4))]}

    def exclusive(self, depth: int) -> dict:
        kinds = ["cat", "dog", "bird"][: self.random.randrange(2, 4)]
        options = [
            {
                "type": "object",
                "properties": {"kind": {"const": kind}, "value": self.any(depth - 1)},
                "required": ["kind", "value"],
                "additionalProperties": False,
            }
            for kind in kinds
        ]
        return {"oneOf": options + [{"type": "null"}]}

    def both(self, depth: int) -> dict:
        one = {"type": "object", "properties": {"left": self.any(depth - 1)}, "required": ["left"]}
        other = {"properties": {"right": self.any(depth - 1)}, "required": ["right"]}
        return {"allOf": [one, other], "maxProperties": 2}

    def reference(self, depth: int) -> dict:
        """A list that may contain itself, or a definition that is used twice."""
        name = f"d{len(self.definitions)}"
        self.definitions[name] = {}
        if self.random.random() < 0.5:
            inner = {"type": "array", "items": {"$ref": f"#/$defs/{name}"}, "maxItems": 2}
            self.definitions[name] = {"anyOf": [{"type": "boolean"}, inner]}
        else:
            self.definitions[name] = self.any(depth - 1)
        return {"$ref": f"#/$defs/{name}"}


def schema(seed: int) -> dict:
    return Maker(seed).whole()

// The Python text that starts a program in a slot. Run as `python3 -s -S -B -c STUB KIND [WORD...]`: without
// the site module a start takes 10 ms instead of 15, so the stub adds what programs expect of it.
#pragma once

#include <string>

#include "core/base/strings.h"

namespace moebius::sandbox {

inline constexpr char kPythonBegin[] = R"STUB(
def start():
    import builtins, os, sys, _signal, _sitebuiltins
    builtins.exit = _sitebuiltins.Quitter('exit', 'Ctrl-D (i.e. EOF)')
    builtins.quit = _sitebuiltins.Quitter('quit', 'Ctrl-D (i.e. EOF)')
    _signal.signal(_signal.SIGXFSZ, _signal.SIG_DFL)
    kind, *words = sys.argv[1:]
    path = '/prog/main.py' if os.path.exists('/prog/main.py') else '../prog/main.py'
    version = 'python%d.%d' % sys.version_info[:2]
    sys.path[:] = [os.getcwd()] + [folder for folder in sys.path if folder]
    sys.path += ['/usr/local/lib/%s/dist-packages' % version, '/usr/lib/python3/dist-packages']
    with open(path, 'rb') as file:
        source = file.read()
    main = sys.modules['__main__'].__dict__
    del main['start'], main['builtins']
    sys.argv[:] = [path]
    sys.orig_argv[:] = [sys.executable, path]
)STUB";

// stdin: the program is __main__, the words are its arguments. checker: likewise, and one that is no program
// or does not find its own names ends with 3, where Python would end with the 1 that refuses.
inline constexpr char kPythonRun[] = R"STUB(
    sys.argv += words
    main['__file__'] = path
    broken = SyntaxError if kind == 'checker' else ()
    try:
        code = compile(source, path, 'exec', dont_inherit=True)
        broken = (NameError, ImportError) if kind == 'checker' else ()
        exec(code, main)
    except broken:
        sys.excepthook(*sys.exc_info())
        sys.exit(3)
)STUB";

// function: calls the function that the word names with the arguments in /prog/args.json and sends the
// result, as plain JSON, as one frame on descriptor 3. assert: runs the program, sends "loaded", gets the
// script, runs it, sends "done", gets the end mark, sends it back. An assertion that failed is "assert". The
// script has a namespace of its own, with the program's names in it but for those of builtins (unless it uses
// no other of the program's, and so tests one of these): the program can neither shadow what the script calls
// nor find what compares for it. Modules that are as quick to load
// as these are restored as the builtins are; others are as the program left them.
inline constexpr char kPythonTalk[] = R"STUB(
    import _ast, _json, cmath, itertools, math
    read, write, leave = os.read, os.write, os._exit
    quote = _json.encode_basestring_ascii
    whole, code_of, kinds = dict(builtins.__dict__), compile, _ast
    modules = [(module, dict(module.__dict__)) for module in (cmath, itertools, math)]

    def send(data):
        data = len(data).to_bytes(4, 'little') + data
        while data:
            data = data[write(3, data):]

    def receive():
        def exactly(size):
            data = b''
            while len(data) < size:
                block = read(3, size - len(data))
                if not block:
                    leave(1)
                data += block
            return data
        return exactly(int.from_bytes(exactly(4), 'little'))

    def plain(value, depth=0):
        if depth > 190:
            raise TypeError('nested too deeply')
        if value is None:
            return 'null'
        if value is True:
            return 'true'
        if value is False:
            return 'false'
        if isinstance(value, str):
            return quote(str.__str__(value))
        if isinstance(value, int):
            return int.__repr__(value)
        if isinstance(value, float):
            return float.__repr__(value)
        if isinstance(value, (list, tuple)):
            return '[' + ','.join([plain(item, depth + 1) for item in value]) + ']'
        if isinstance(value, dict):
            parts = []
            for key, item in dict.items(value):
                text = plain(key, depth + 1)
                if not isinstance(key, (str, int, float, type(None))):
                    raise TypeError('a key is no plain value')
                parts.append((text if text[0] == '"' else quote(text)) + ':' + plain(item, depth + 1))
            return '{' + ','.join(parts) + '}'
        if type(value).__module__ == 'numpy':
            return plain(value.tolist(), depth + 1)
        raise TypeError('%s is no plain value' % type(value).__name__)

    def foreign(value):
        """An object of the program's own class that says itself what it equals, or how it compares."""
        for name in ('__eq__', '__ne__', '__lt__', '__le__', '__gt__', '__ge__', '__contains__'):
            code = getattr(getattr(type(value), name, None), '__code__', None)
            if code is not None and not code.co_filename.startswith('/usr/'):
                return True
        return False

    def of_the_program(kind):
        """A class made by Python code that is not the library's."""
        code = getattr(kind.__eq__, '__code__', None)
        return kind.__flags__ & 512 and (code is None or not code.co_filename.startswith('/usr/'))

    def base(value):
        """The same value without a subclass's methods, in containers too."""
        for plain_type in (bool, int, float, str, bytes):
            if isinstance(value, plain_type):
                return value if type(value) is plain_type else plain_type.__new__(plain_type, _raw(plain_type, value))
        for plain_type in (list, tuple):
            if type(value) is plain_type or isinstance(value, plain_type) and of_the_program(type(value)):
                return plain_type([base(item) for item in plain_type.__iter__(value)])
        for plain_type in (set, frozenset):
            if isinstance(value, plain_type) and type(value) is not plain_type and of_the_program(type(value)):
                return plain_type(plain_type.__iter__(value))
        if type(value) is dict or isinstance(value, dict) and of_the_program(type(value)):
            return {key: base(item) for key, item in dict.items(value)}
        return value

    def _raw(plain_type, value):
        if plain_type is int:
            return int.__index__(value)
        if plain_type is float:
            return float.__float__(value)
        if plain_type is str:
            return str.__str__(value)
        return bytes.__getitem__(value, slice(None))

    def any_foreign(value):
        if isinstance(value, (list, tuple, set, frozenset)):
            return any([any_foreign(item) for item in value])
        if isinstance(value, dict):
            return any([any_foreign(item) for pair in value.items() for item in pair])
        return foreign(value)

    def holds(comparison, a, b):
        if comparison == 'Is':
            return a is b
        if comparison == 'IsNot':
            return a is not b
        a, b = base(a), base(b)
        if any_foreign(a) != any_foreign(b):  # an object of the program's own is no plain value
            return comparison in ('NotEq', 'NotIn')
        if comparison == 'Eq':
            return a == b
        if comparison == 'NotEq':
            return a != b
        if comparison == 'In':
            return a in b
        if comparison == 'NotIn':
            return a not in b
        if comparison == 'Lt':
            return a < b
        if comparison == 'LtE':
            return a <= b
        if comparison == 'Gt':
            return a > b
        return a >= b

    def compare(comparisons, *values):
        for i, comparison in enumerate(comparisons.split()):
            result = holds(comparison, values[i], values[i + 1])
            if i + 2 < len(values) and not truth(result):
                return False
        return result

    def truth(value):
        return False if foreign(value) else base(value)

    def negation(value):
        return False if foreign(value) else not base(value)

    def call(name, arguments, node):
        function = kinds.Name(id=name, ctx=kinds.Load())
        made = kinds.Call(func=function, args=arguments, keywords=[])
        for new in (function, made, arguments[0]):
            for field in ('lineno', 'col_offset', 'end_lineno', 'end_col_offset'):
                setattr(new, field, getattr(node, field))
        return made

    def rewrite(node):
        """Comparisons and conditions of the script go by plain values."""
        for field in node._fields:
            child = getattr(node, field, None)
            if isinstance(child, kinds.AST):
                setattr(node, field, rewrite(child))
            elif isinstance(child, list):
                child[:] = [rewrite(item) if isinstance(item, kinds.AST) else item for item in child]
        if isinstance(node, kinds.Compare):
            names = kinds.Constant(value=' '.join([type(op).__name__ for op in node.ops]))
            return call('__moebius_compare__', [names, node.left, *node.comparators], node)
        if isinstance(node, kinds.UnaryOp) and isinstance(node.op, kinds.Not):
            return call('__moebius_not__', [node.operand], node)
        if isinstance(node, kinds.Assert):
            node.test = call('__moebius_truth__', [node.test], node)
        return node

    def names_in(node):
        for field in node._fields:
            child = getattr(node, field, None)
            for item in child if isinstance(child, list) else [child]:
                if isinstance(item, kinds.AST):
                    yield from names_in(item)
        if isinstance(node, kinds.Name) and not node.id.startswith('__'):
            yield node.id

    def run_program():
        module = type(sys)('program')
        module.__file__ = path
        module.__builtins__ = builtins
        sys.modules['program'] = module
        exec(code_of(source, path, 'exec', dont_inherit=True), module.__dict__)
        return module.__dict__

    def find(names):
        first, _, rest = words[0].partition('.')
        if first not in names and 'Solution' in names and not rest:
            return getattr(names['Solution'](), first)
        found = names[first]
        return getattr(found(), rest) if rest else found

    def end_of_output():
        for stream in (sys.stdout, sys.stderr):
            try:
                stream.flush()
            except Exception:
                pass

    if kind == 'function':
        import json
        with open(path.replace('main.py', 'args.json'), encoding='utf-8') as file:
            sys.set_int_max_str_digits(0)
            arguments = json.load(file)
            sys.set_int_max_str_digits(4300)
        result = find(run_program())(*arguments)
        sys.set_int_max_str_digits(0)
        try:
            text = plain(result)
        except TypeError as error:
            sys.__stderr__.write('the result: %s\n' % error)
            end_of_output()
            leave(0)
        send(text.encode('ascii'))
        end_of_output()
        leave(0)

    names = run_program()
    send(b'loaded')
    script = receive()
    for module, contents in [(builtins, whole), *modules]:
        module.__dict__.clear()
        module.__dict__.update(contents)
    for module, _ in modules:
        sys.modules[module.__name__] = module
    names['__name__'] = '__main__'
    tree = code_of(script, 'test', 'exec', kinds.PyCF_ONLY_AST)
    used = set(names_in(tree))
    own = {name: value for name, value in dict.items(names) if type(name) is str and name not in whole}
    if not any(name in own and type(own[name]) is not type(sys) for name in used):
        for name in used:  # what is tested has a builtin's name
            if name in names:
                own[name] = names[name]
    names = own
    names.update(__name__='__main__', __builtins__=builtins, __moebius_compare__=compare, __moebius_not__=negation,
                 __moebius_truth__=truth)
    try:
        exec(code_of(rewrite(tree), 'test', 'exec'), names)
    except AssertionError:
        sys.excepthook(*sys.exc_info())
        send(b'assert')
        end_of_output()
        leave(1)
    send(b'done')
    send(receive())
    end_of_output()
    leave(0)
)STUB";

inline constexpr char kPythonEnd[] = R"STUB(
import builtins
# With a copy of the builtins, which the program cannot change.
type(start)(start.__code__, {'__builtins__': dict(builtins.__dict__), '__name__': 'stub'})()
)STUB";

// The stub of a kind. Compiling the talk takes 3 ms, a sixth of a start, so only those get it that need it.
inline std::string PythonStub(const std::string& kind) {
  const bool runs = kind == "stdin" || kind == "checker";
  return Concat(kPythonBegin, runs ? kPythonRun : kPythonTalk, kPythonEnd);
}

}  // namespace moebius::sandbox

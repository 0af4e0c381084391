# {"verdict": ["OK"], "tests": {"kind": "function", "function": "f", "tests": [{"input": [[3, 1, 2], {"a": null}], "output": [[1, 2, 3], {"a": null, "b": [true, 0.5, "\u00e9"]}]}]}}
def f(numbers, table):
    print("noise")
    table["b"] = (True, 0.5, "é")
    return sorted(numbers), table

# {"verdict": ["OK"], "tests": {"kind": "assert", "tests": [{"input": "def check(candidate):\n    assert candidate(2) == 4\n    assert candidate([1]) == [1, 1]\n    assert abs(candidate(0.1) - 0.2) < 1e-9\n    assert candidate(1) != 3 and not candidate(0)\ncheck(f)", "output": null}, {"input": "assert isinstance(f('a'), str)\ntry:\n    f(None)\n    assert False\nexcept TypeError:\n    pass"}]}}
def f(x):
    return x * 2

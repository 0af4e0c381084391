# {"verdict": ["RUNTIME"]}
def f(:

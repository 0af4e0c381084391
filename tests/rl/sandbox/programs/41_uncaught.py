# {"verdict": ["RUNTIME"]}
raise ValueError("right")

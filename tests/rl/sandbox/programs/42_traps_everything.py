# {"verdict": ["WALL", "CPU"], "limits": {"wall_s": 1, "cpu_s": 1}}
while True:
    try:
        while True:
            pass
    except BaseException:
        pass

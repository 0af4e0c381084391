# {"verdict": ["WALL"], "limits": {"wall_s": 1}}
import threading
lock = threading.Lock()
lock.acquire()
lock.acquire()

# {"verdict": ["OK"]}
# A call that waits for the slot's init can be interrupted by a signal; Python then calls again.
import signal
count = 0
def tick(*_):
    global count
    count += 1
signal.signal(signal.SIGALRM, tick)
signal.setitimer(signal.ITIMER_REAL, 0.001, 0.001)
for i in range(3000):
    with open("/dev/null") as file:
        pass
    with open("f%d" % (i % 10), "w") as file:
        file.write("x")
signal.setitimer(signal.ITIMER_REAL, 0)
print("right" if count > 10 else count)

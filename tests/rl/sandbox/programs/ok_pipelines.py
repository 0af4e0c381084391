# {"verdict": ["OK"], "limits": {"cpu_s": 10, "wall_s": 20}}
import subprocess
# A child that ends while the shell forks the next one must not disturb it.
script = "for i in 1 2 3 4 5 6 7 8 9 10; do echo $i | cat > f$i; (exit 3) | true; cat < f$i; done"
for _ in range(20):
    done = subprocess.run(script, shell=True, capture_output=True, text=True)
    assert done.returncode == 0 and not done.stderr and len(done.stdout.split()) == 10, done
print("right")

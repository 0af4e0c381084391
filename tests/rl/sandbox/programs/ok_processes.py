# {"verdict": ["OK"]}
import multiprocessing
def square(n):
    return n * n
if __name__ == "__main__":
    with multiprocessing.Pool(4) as pool:
        print("right" if sum(pool.map(square, range(100))) == 328350 else "wrong")

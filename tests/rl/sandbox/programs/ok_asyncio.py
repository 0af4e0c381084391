# {"verdict": ["OK"]}
import asyncio
async def main():
    await asyncio.sleep(0.01)
    print("right")
asyncio.run(main())

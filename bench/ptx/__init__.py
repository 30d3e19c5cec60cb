"""A GPU made of numpy: it executes the PTX of the kernels on the CPU, and watches what they do with memory.

PTX is what nvcc and Triton hand to the assembler, so what runs here is what they made of the kernels: vector
loads, shuffles, barriers, rounding modes, and the launches that the engines compute. A kernel that reads
outside its tensors, reads a register that no thread has written, loads 16 bytes from an address that is not
divisible by 16, or races in shared memory, ends with an error that names the instruction.
`python -m bench traffic` counts what each kernel moves. Of time it says nothing.
"""

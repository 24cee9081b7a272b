// An output-stationary systolic array, int8 into int32: docs/pe-array.md in SystemVerilog.
// model::OutputGrid must equal it in every register and cycle.

module os_pe (
    input logic clk,
    input logic rst,
    // from the left, and on to the right
    input logic signed [7:0] a_value_in,
    input logic a_valid_in,
    input logic a_first_in,
    input logic a_last_in,
    output logic signed [7:0] a_value,
    output logic a_valid,
    output logic a_first,
    output logic a_last,
    // from above, and on down
    input logic signed [7:0] b_value_in,
    input logic b_valid_in,
    output logic signed [7:0] b_value,
    output logic b_valid,
    output logic signed [31:0] sum,
    // results, one row down a cycle once released
    input logic release_column,
    input logic signed [31:0] result_in,
    input logic arrives,
    output logic signed [31:0] result,
    output logic present,
    output logic moving,
    output logic leaves
);
  logic signed [15:0] product;
  logic signed [31:0] next_sum;
  logic works;

  assign product = a_value_in * b_value_in;
  assign next_sum = (a_first_in ? 32'sd0 : sum) + 32'(product);
  assign works = a_valid_in && b_valid_in;
  assign leaves = present && (moving || release_column);

  always_ff @(posedge clk) begin
    if (rst) begin
      {a_value, a_valid, a_first, a_last} <= '0;
      {b_value, b_valid} <= '0;
      {sum, result, present, moving} <= '0;
    end else begin
      a_value <= a_value_in;
      a_valid <= a_valid_in;
      a_first <= a_first_in;
      a_last <= a_last_in;
      b_value <= b_value_in;
      b_valid <= b_valid_in;
      if (works) sum <= next_sum;
      if (works && a_last_in) begin
        result <= next_sum;
        present <= 1'b1;
        moving <= 1'b0;
      end else if (arrives) begin
        result <= result_in;
        present <= 1'b1;
        moving <= 1'b1;
      end else if (leaves) begin
        {result, present, moving} <= '0;
      end
    end
  end
endmodule

module systolic_os #(
    parameter int R = 4,
    parameter int C = 4
) (
    input logic clk,
    input logic rst,
    input logic signed [7:0] a_value_in[R],
    input logic a_valid_in[R],
    input logic a_first_in[R],
    input logic a_last_in[R],
    input logic signed [7:0] b_value_in[C],
    input logic b_valid_in[C],
    input logic release_column[C],
    output logic signed [31:0] result_out[C],
    output logic result_valid_out[C],
    // all registers, for the comparison
    output logic signed [7:0] a_value[R][C],
    output logic a_valid[R][C],
    output logic a_first[R][C],
    output logic a_last[R][C],
    output logic signed [7:0] b_value[R][C],
    output logic b_valid[R][C],
    output logic signed [31:0] sum[R][C],
    output logic signed [31:0] result[R][C],
    output logic present[R][C],
    output logic moving[R][C]
);
  logic leaves[R][C];

  for (genvar i = 0; i < R; ++i) begin : row
    for (genvar j = 0; j < C; ++j) begin : column
      logic signed [7:0] from_left, from_above;
      logic valid_left, first_left, last_left, valid_above, result_arrives;
      logic signed [31:0] result_above;

      if (j == 0) begin : left_edge
        assign from_left = a_value_in[i];
        assign valid_left = a_valid_in[i];
        assign first_left = a_first_in[i];
        assign last_left = a_last_in[i];
      end else begin : inside_row
        assign from_left = a_value[i][j-1];
        assign valid_left = a_valid[i][j-1];
        assign first_left = a_first[i][j-1];
        assign last_left = a_last[i][j-1];
      end
      if (i == 0) begin : top_edge
        assign from_above = b_value_in[j];
        assign valid_above = b_valid_in[j];
        assign result_above = '0;
        assign result_arrives = 1'b0;
      end else begin : inside_column
        assign from_above = b_value[i-1][j];
        assign valid_above = b_valid[i-1][j];
        assign result_above = result[i-1][j];
        assign result_arrives = leaves[i-1][j];
      end

      os_pe pe (
          .clk,
          .rst,
          .a_value_in(from_left),
          .a_valid_in(valid_left),
          .a_first_in(first_left),
          .a_last_in(last_left),
          .a_value(a_value[i][j]),
          .a_valid(a_valid[i][j]),
          .a_first(a_first[i][j]),
          .a_last(a_last[i][j]),
          .b_value_in(from_above),
          .b_valid_in(valid_above),
          .b_value(b_value[i][j]),
          .b_valid(b_valid[i][j]),
          .sum(sum[i][j]),
          .release_column(release_column[j]),
          .result_in(result_above),
          .arrives(result_arrives),
          .result(result[i][j]),
          .present(present[i][j]),
          .moving(moving[i][j]),
          .leaves(leaves[i][j])
      );
    end
  end

  for (genvar j = 0; j < C; ++j) begin : bottom
    assign result_out[j] = result[R-1][j];
    assign result_valid_out[j] = leaves[R-1][j];
  end
endmodule
